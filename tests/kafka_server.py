"""A real Apache Kafka as a child process, for tests, the bench and people: no Docker, no root, nothing left behind.

Maven fetches the broker's jars once into `.cache/kafka` (about 43 MB); each `KafkaServer` is a single KRaft node with its own
temporary data and free loopback ports, up in a few seconds. It offers a plain listener and, on a second port, one with TLS and
SASL (PLAIN and SCRAM-SHA-256), so that secured connections are tested for real too.

    with KafkaServer() as server:
        print(server.bootstrap)          # 127.0.0.1:40123
        server.pause()                   # SIGSTOP; the others: resume(), kill(), restart()

By hand: `python -m tests.kafka_server` prints the address and runs until Ctrl-C.

A broker never outlives the process that started it: a watchdog reads a pipe that closes when that process dies, even by
kill -9, and then kills the broker and removes its data. The broker's log is kept under `.cache/kafka/logs` when the broker did
not start, died, or `stop(keep_log=True)` asks for it.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests import child_process
from tests.maven import JavaMissing, jars, java_command, java_program
from tests.ports import free_port, free_ports

VERSION = "4.3.1"
CACHE = Path(__file__).resolve().parent.parent / ".cache" / "kafka"
USER, PASSWORD = "alice", "alice-secret"
_STORE_PASSWORD = "changeit"
_READY = "Kafka Server started"
_START_TIMEOUT_S = 90.0

_JARS = [
    "org.slf4j:slf4j-api:2.0.17",  # Maven would take 1.7.36, with which nothing is logged
    f"org.apache.kafka:kafka_2.13:{VERSION}",
    "org.apache.logging.log4j:log4j-slf4j2-impl:2.24.3",
]
_LOG4J = """appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %m (%c)%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
"""


class KafkaServer:
    """One broker. Not thread-safe; its methods block for seconds, so call them by `asyncio.to_thread` where a loop runs.

    Life: `start` → (`pause` ⇄ `resume`, `kill` → `start`, `restart`)* → `stop`. Ports and data stay the same until `stop`.

    Args:
        settings: Broker settings on top of ours, as Kafka spells them.
        heap_mb: The JVM's heap.
        measured: It is for a measurement: compiled as well as can be, which takes a minute of CPU time.
        lines: Ports for further plain listeners, each told to its clients as the broker's address: something else must listen there
            and carry the bytes to the port that `line_ports` has for it.
    """

    def __init__(
        self, settings: Mapping[str, str] | None = None, *, heap_mb: int = 384, measured: bool = False, lines: Sequence[int] = ()
    ) -> None:
        self._settings = dict(settings or {})
        self._heap_mb = heap_mb
        self._measured = measured
        self._folder: Path | None = None
        self._log: Path | None = None
        self._ports: Sequence[int] = (0, 0, 0)
        self._lines = tuple(lines)
        self.line_ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """The plain listener, `host:port`."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def secure_bootstrap(self) -> str:
        """The listener with TLS (certificate of `cafile`) and SASL (`USER`, `PASSWORD`; PLAIN or SCRAM-SHA-256)."""
        return f"127.0.0.1:{self._ports[1]}"

    @property
    def cafile(self) -> Path:
        """The certificate that a client of the secure listener must trust."""
        return CACHE / "tls" / "ca.pem"

    @property
    def pid(self) -> int:
        """The broker's process id."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Run the broker and return when it answers.

        Raises:
            JavaMissing: Java, Maven or the jars are not to be had.
            RuntimeError: It did not come up; the message ends with its log.
        """
        assert self._process is None, "already started"
        java = java_program()
        class_path = jars(f"jars-{VERSION}", _JARS, cache=CACHE)
        if self._folder is None:
            self._ports = free_ports(3)
            self.line_ports = [free_port() for _ in self._lines]
            self._folder = self._format(java, class_path)
            self._log = CACHE / "logs" / f"kafka-{self._ports[0]}.log"
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._log.write_bytes(b"")
        self._run(java, class_path)

    def stop(self, *, keep_log: bool = False) -> None:
        """Shut it down and remove its data. Harmless when it does not run."""
        died = self._process is not None and self._process.poll() is not None
        self._end(signal.SIGTERM)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._log is not None and not died and not keep_log:
            self._log.unlink(missing_ok=True)

    def kill(self) -> None:
        """End it as kill -9 does; `start` brings it back on the same data and ports."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop the process where it stands: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Shut it down cleanly and start it again on the same data and ports."""
        self._end(signal.SIGTERM)
        self.start()

    def log_tail(self, lines: int = 40) -> str:
        """Return the end of the broker's log."""
        if self._log is None or not self._log.exists():
            return ""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _run(self, java: str, class_path: str) -> None:
        assert self._folder is not None and self._log is not None
        begun_at = self._log.stat().st_size
        command = java_command(java, self._heap_mb, measured=self._measured)
        command += [f"-Dlog4j2.configurationFile={self._folder}/log4j2.properties", "-cp", class_path]
        command += ["kafka.Kafka", str(self._folder / "server.properties")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder, start_new_session=True
            )
        self._watchdog = child_process.watch(self._process, self._folder)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while _READY not in self._log.read_text(errors="replace")[begun_at:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self.log_tail()
                self._end(signal.SIGKILL)
                raise RuntimeError(f"Kafka did not start; its log is {self._log} and ends with:\n{tail}")
            time.sleep(0.05)

    def _end(self, how: signal.Signals) -> None:
        process, watchdog = self._process, self._watchdog
        self._process = self._watchdog = None
        child_process.end(process, watchdog, how)

    def _format(self, java: str, class_path: str) -> Path:
        """Write the settings and make the storage, with the SCRAM user in it."""
        folder = Path(tempfile.mkdtemp(prefix="kafka-server-"))
        (folder / "log4j2.properties").write_text(_LOG4J)
        settings = broker_settings(folder, self._ports, certificates(java)) | self._settings
        for number, (told, port) in enumerate(zip(self._lines, self.line_ports, strict=True)):
            settings["listeners"] += f",LINE{number}://127.0.0.1:{port}"
            settings["advertised.listeners"] += f",LINE{number}://127.0.0.1:{told}"
            settings["listener.security.protocol.map"] += f",LINE{number}:PLAINTEXT"
        (folder / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        command = [*java_command(java, 128), f"-Dlog4j2.configurationFile={folder}/log4j2.properties"]
        command += [
            "-cp",
            class_path,
            "kafka.tools.StorageTool",
            "format",
            "-t",
            "c3RyZWFtZm9yZ2UtdGVzdA",
            "-c",
            f"{folder}/server.properties",
        ]
        command += ["--add-scram", f"SCRAM-SHA-256=[name={USER},password={PASSWORD}]"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_START_TIMEOUT_S)
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise RuntimeError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")
        return folder


def broker_settings(folder: Path, ports: Sequence[int], keystore: Path) -> dict[str, str]:
    """Return the settings of a single node that is quick to start, to rebalance and to abort what is left open."""
    plain, secure, controller = ports
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAIN://127.0.0.1:{plain},SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAIN://127.0.0.1:{plain},SECURE://127.0.0.1:{secure}",
        "listener.security.protocol.map": "PLAIN:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAIN",
        "listener.name.secure.ssl.keystore.type": "PKCS12",
        "listener.name.secure.ssl.keystore.location": str(keystore),
        "listener.name.secure.ssl.keystore.password": _STORE_PASSWORD,
        "listener.name.secure.ssl.key.password": _STORE_PASSWORD,
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
        "listener.name.secure.plain.sasl.jaas.config": (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        ),
        "listener.name.secure.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        "log.dirs": str(folder / "data"),
        "auto.create.topics.enable": "false",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "500",
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "log.cleaner.backoff.ms": "1000",
    }
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        settings[f"{topic}.replication.factor"] = "1"
        settings[f"{topic}.num.partitions"] = "4"
    settings["transaction.state.log.min.isr"] = settings["share.coordinator.state.topic.min.isr"] = "1"
    return settings


def certificates(java: str) -> Path:
    """Return the broker's key store, made on first use; its own certificate is the authority, in `ca.pem` beside it."""
    folder = CACHE / "tls"
    store, authority = folder / "server.p12", folder / "ca.pem"
    keytool = shutil.which("keytool", path=str(Path(java).resolve().parent)) or shutil.which("keytool")
    if keytool is None:
        raise JavaMissing("no Kafka for tests: `keytool`, a part of the JDK, is not there")
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if authority.exists():
            return store
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            common = ["-alias", "kafka", "-keystore", f"{scratch}/server.p12", "-storetype", "PKCS12", "-storepass", _STORE_PASSWORD]
            make = [
                "-genkeypair",
                "-keyalg",
                "RSA",
                "-dname",
                "CN=localhost",
                "-ext",
                "san=ip:127.0.0.1,dns:localhost",
                "-validity",
                "3650",
            ]
            subprocess.run([keytool, *make, *common], check=True, capture_output=True, timeout=60)
            subprocess.run(
                [keytool, "-exportcert", "-rfc", "-file", f"{scratch}/ca.pem", *common], check=True, capture_output=True, timeout=60
            )
            folder.mkdir(exist_ok=True)
            Path(scratch, "server.p12").rename(store)
            Path(scratch, "ca.pem").rename(authority)
    return store


def main() -> int:
    """Run a broker until Ctrl-C or SIGTERM and print its addresses."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with KafkaServer() as server:
        print(f"kafka://{server.bootstrap}", flush=True)
        print(
            f"TLS and SASL: {server.secure_bootstrap}, user {USER}, password {PASSWORD}, certificate {server.cafile}",
            file=sys.stderr,
            flush=True,
        )
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

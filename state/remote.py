"""A folder to keep copies in: on this machine, or wherever fsspec reaches (`gs://`, `s3://`, `memory://`, …). The door to fsspec.

    folder = open_folder("gs://bucket/savepoints/before-upgrade")
    with folder.create("0.entries") as file: file.write(...)
    folder.write("_metadata.json", b"...")          whole or not at all
    folder.names()                                  ["0.entries", "_metadata.json"]

A plain path and `file://` need no library. For the rest fsspec is needed (`pip install "streamforge[checkpoints]"`), and the package of the
service, such as gcsfs or s3fs. Names may have slashes in them. A file counts when `create` has ended without an error; on a local disk it
is then safe against a crash of the machine.

Source: fsspec, "Filesystem API".
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from state.errors import StateError, StreamForgeError, UnavailableError

_PART = ".part"
"""How the name of a file ends that is being written."""


class Folder(Protocol):
    """A folder. Everything here blocks: call it from a thread where others wait.

    Attributes:
        url: Where it is, for people.
    """

    url: str

    def create(self, name: str) -> Any:
        """Return a context with a file to write; it replaces one of that name when the context ends without an error."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        ...

    def open(self, name: str) -> Any:
        """Return a context with a file to read; StateError if there is none."""
        ...

    def read(self, name: str) -> bytes:
        """Return the content of a file; StateError if there is none."""
        ...

    def names(self) -> list[str]:
        """Return the names of all files below the folder, sorted; [] if it does not exist."""
        ...

    def sizes(self) -> dict[str, int]:
        """Return the names of all files below the folder with their sizes; {} if it does not exist."""
        ...

    def child(self, name: str) -> "Folder":
        """Return a folder inside this one."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file; nothing happens if it is not there."""
        ...

    def sweep(self, below: str) -> None:
        """Delete what killed processes left half written below a folder inside this one; what this object is writing stays."""
        ...

    def remove(self) -> None:
        """Delete the folder and everything in it."""
        ...


def open_folder(url: str | Path) -> Folder:
    """Return the folder at a path or URL; it need not exist.

    Raises:
        StateError: The library for such a URL is missing, or it cannot be used (credentials).
    """
    text = str(url)
    scheme, found, rest = text.partition("://")
    if not found:
        return LocalFolder(Path(text))
    if scheme == "file":
        return LocalFolder(Path(rest))
    try:
        import fsspec
    except ImportError as error:
        raise StateError(f'{text} needs fsspec: pip install "streamforge[checkpoints]", or give a folder of this machine') from error
    try:
        filesystem, path = fsspec.core.url_to_fs(text)
    except Exception as error:  # each file system has errors of its own; they look for credentials here
        raise StateError(f"{text} cannot be reached: {str(error) or type(error).__name__}") from error
    return RemoteFolder(text, filesystem, path)


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path)
        self._written: set[Path] = set()

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        target = self.path / name
        made = target.with_name(f".{target.name}{_PART}")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._written.add(made)
        try:
            with made.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            made.replace(target)
        except BaseException:
            with suppress(OSError):
                made.unlink()
            raise
        finally:
            self._written.discard(made)
        _sync(target.parent)

    def write(self, name: str, content: bytes) -> None:
        with self.create(name) as file:
            file.write(content)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        try:
            file = (self.path / name).open("rb")
        except FileNotFoundError as error:
            raise StateError(f"there is no file {name} in {self.url}") from error
        with file:
            yield file

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def names(self) -> list[str]:
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        found = (path for path in self.path.rglob("*") if path.is_file() and not path.name.endswith(_PART))
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in found}

    def child(self, name: str) -> "LocalFolder":
        return LocalFolder(self.path / name)

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def sweep(self, below: str) -> None:
        for path in sorted((self.path / below).rglob(f".*{_PART}")):
            if path not in self._written:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        if self.path.exists():
            shutil.rmtree(self.path)


class RemoteFolder:
    """A folder behind fsspec. A file is written here first and sent as a whole, and fetched as a whole before it is read."""

    def __init__(self, url: str, filesystem: Any, path: str) -> None:
        self.url = url
        self._filesystem = filesystem
        self._path = path.rstrip("/")

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        with tempfile.NamedTemporaryFile(prefix="streamforge-") as file:
            yield file  # type: ignore[misc]  # it behaves like one
            file.flush()
            with self._translated():
                self._filesystem.put_file(file.name, self._at(name))

    def write(self, name: str, content: bytes) -> None:
        with self._translated():
            self._filesystem.pipe_file(self._at(name), content)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with tempfile.NamedTemporaryFile(prefix="streamforge-") as file:
            with self._translated(name):
                self._filesystem.get_file(self._at(name), file.name)
            with Path(file.name).open("rb") as fetched:
                yield fetched

    def read(self, name: str) -> bytes:
        with self._translated(name):
            content: bytes = self._filesystem.cat_file(self._at(name))
        return content

    def names(self) -> list[str]:
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        with self._translated():
            self._filesystem.invalidate_cache()
            found = self._filesystem.find(self._path, detail=True)
        prefix = self._path.strip("/") + "/"
        return {path.strip("/").removeprefix(prefix): int(entry["size"] or 0) for path, entry in found.items()}

    def child(self, name: str) -> "RemoteFolder":
        return RemoteFolder(f"{self.url.rstrip('/')}/{name}", self._filesystem, self._at(name))

    def delete(self, name: str) -> None:
        with self._translated(), suppress(FileNotFoundError):
            self._filesystem.rm_file(self._at(name))

    def sweep(self, below: str) -> None:
        """Leave it as it is: a file is sent as a whole, and parts of one that never came to an end are the service's to show and delete."""

    def remove(self) -> None:
        with self._translated(), suppress(FileNotFoundError):
            self._filesystem.rm(self._path, recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextmanager
    def _translated(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if not name:
                raise
            raise StateError(f"there is no file {name} in {self.url}") from error
        except StreamForgeError:
            raise
        except Exception as error:  # each file system has errors of its own, most of them no OSError
            raise UnavailableError(f"{self.url} cannot be reached: {type(error).__name__}: {error}") from error


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

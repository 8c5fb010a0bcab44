"""Checkpoints: consistent copies of a task's store, kept in a place until a worker without a (sound) store needs one.

    place/shop/3/checkpoint-00000000000000000918.json      a manifest: position, and sha256 and size of each file
    place/shop/3/files/9f86d081…                           the files, each under its sha256: those that did not change are kept once

- **Written last.** A checkpoint is there when its manifest is; files come before. A process that is killed in between leaves files
  that no manifest names, or half of one, and the next checkpoint of a newly opened task removes them. If another worker is just
  writing one (see below), its checkpoint fails, and it tries again.
- **Trusted only as far as it can be checked** (design rule 4). A manifest ends with its own sha256; each file is compared with the
  manifest's sha256 and size as it is fetched; the store that comes out must say that it is where the manifest says. Whatever does
  not fit is refused, and the checkpoint before it is tried. Identity, log bounds and age are judged as those of a store are.
- **Incremental.** RocksDB never changes a table file, so a file that is in the place already is not sent again.
- Two workers may write to one place (one of them has just lost the task and does not know yet): a checkpoint holds committed changes
  only, so the older one is right too, and it is named by its offset, so the newer one comes first.

Sources: RocksDB wiki, "Checkpoints"; Apache Flink, "Incremental checkpoints" (shared files, manifest last).
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from state.errors import StateError
from state.remote import Folder
from state.store import Position

FORMAT = 1
_PREFIX, _SUFFIX, _FILES = "checkpoint-", ".json", "files/"
_TABLE, _NEW = ".sst", ".new"
_CHUNK = 1 << 20


class Entry(msgspec.Struct, frozen=True):
    """One file of a checkpoint."""

    name: str
    sha256: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True):
    """What a checkpoint is. `identity` is that of the changelog partition, in hexadecimal digits."""

    format: int
    task: int
    identity: str
    next_offset: int
    time_ms: int
    files: tuple[Entry, ...]

    @property
    def position(self) -> Position:
        """Position of the store that it holds."""
        return Position(bytes.fromhex(self.identity), self.next_offset, self.time_ms)

    @property
    def name(self) -> str:
        """Name of the manifest: later offsets sort higher."""
        return f"{_PREFIX}{self.next_offset:020d}{_SUFFIX}"

    def encode(self) -> bytes:
        """Return a line of JSON, and a line with its sha256."""
        body = msgspec.json.encode(self)
        return body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"

    @classmethod
    def decode(cls, raw: bytes) -> "Manifest":
        """Read a manifest.

        Raises:
            StateError: It is torn, changed, or of a format that this version does not know.
        """
        body, _, digest = raw.partition(b"\n")
        if digest != hashlib.sha256(body).hexdigest().encode() + b"\n":
            raise StateError("its manifest is torn or was changed: the sha256 at its end does not fit")
        try:
            manifest = msgspec.json.decode(body, type=cls)
            bytes.fromhex(manifest.identity)
        except (msgspec.DecodeError, ValueError) as error:
            raise StateError(f"its manifest cannot be read: {error}") from error
        if manifest.format != FORMAT:
            raise StateError(f"it has format {manifest.format}, this version reads format {FORMAT}")
        return manifest


class Place(Protocol):
    """Where files are kept: a folder, or an object store. Names are relative, with forward slashes. Slow: call it from a thread.

    Every method raises StateError where the place cannot do it.
    """

    def sizes(self, folder: str) -> dict[str, int]:
        """Return names (relative to the folder) and sizes of the files in a folder; {} if there is none."""
        ...

    def read(self, name: str) -> bytes:
        """Return the content of a small file."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, all or nothing."""
        ...

    def put(self, name: str, source: Path) -> None:
        """Take a file in; the source stays."""
        ...

    def get(self, name: str, target: Path) -> None:
        """Give a file out."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        ...

    def sweep(self, folder: str) -> None:
        """Remove what killed processes have left half written in a folder; `sizes` does not show it everywhere."""
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """What keeping a checkpoint took: files and bytes that were not there before."""

    name: str
    files: int
    payload_bytes: int


class Shelf:
    """The checkpoints of one task in one place.

    Args:
        prefix: Folder of the task in the place, such as "shop/3".
        kept: How many checkpoints stay.
    """

    def __init__(self, place: Place, prefix: str, *, kept: int, say: Callable[[str], None]) -> None:
        self._place = place
        self._prefix = prefix.strip("/") + "/"
        self._kept = kept
        self._say = say
        self._is_swept = False

    def keep(self, folder: Path, manifest: Manifest, *, is_stopped: Callable[[], bool] = lambda: False) -> Kept | None:
        """Take a checkpoint in: files first, the manifest last; then remove what is too old.

        Args:
            is_stopped: Asked before each file; once it says yes, nothing more is done.
        Returns:
            None if it was stopped.
        """
        have = self._place.sizes(self._prefix + _FILES)
        files = payload_bytes = 0
        for entry in {entry.sha256: entry for entry in manifest.files}.values():
            if have.get(entry.sha256) == entry.size_bytes:
                continue
            if is_stopped():
                return None
            self._place.put(self._prefix + _FILES + entry.sha256, folder / entry.name)
            files, payload_bytes = files + 1, payload_bytes + entry.size_bytes
        if is_stopped():
            return None
        self._place.write(self._prefix + manifest.name, manifest.encode())
        self._remove_old(manifest.identity)
        return Kept(manifest.name, files, payload_bytes)

    def manifests(self) -> Iterator[tuple[str, Manifest | StateError]]:
        """Yield name and manifest of each checkpoint, the newest first, or why it cannot be used."""
        for name in sorted(self._names(), reverse=True):
            try:
                yield name, Manifest.decode(self._place.read(self._prefix + name))
            except StateError as error:
                yield name, error

    def fetch(self, manifest: Manifest, folder: Path) -> None:
        """Put the files of a checkpoint into a folder that does not exist yet, each one checked.

        Raises:
            StateError: A file is missing, torn or changed.
        """
        folder.mkdir(parents=True)
        for entry in manifest.files:
            if Path(entry.name).name != entry.name:
                raise StateError(f"its file {entry.name!r} has a name that leads elsewhere")
            target = folder / entry.name
            self._place.get(self._prefix + _FILES + entry.sha256, target)
            size_bytes = target.stat().st_size
            if size_bytes != entry.size_bytes:
                raise StateError(f"its file {entry.name} has {size_bytes} bytes, not {entry.size_bytes}")
            if sha256_of(target) != entry.sha256:
                raise StateError(f"its file {entry.name} was changed: its sha256 does not fit")

    def _names(self) -> list[str]:
        """Return the names of the manifests; what else lies below the folder has a slash in its name, or another beginning."""
        return [name for name in self._place.sizes(self._prefix) if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]

    def _remove_old(self, identity: str) -> None:
        """Remove what is beyond the number to keep, unreadable, or follows another changelog; files that only those need go too."""
        stays: list[Manifest] = []
        goes: list[tuple[str, Manifest | StateError]] = []
        for name, manifest in self.manifests():
            if isinstance(manifest, Manifest) and manifest.identity == identity and len(stays) < self._kept:
                stays.append(manifest)
            else:
                goes.append((name, manifest))
        needed = {entry.sha256 for manifest in stays for entry in manifest.files}
        unneeded: set[str] = set()
        for name, manifest in goes:
            if isinstance(manifest, StateError):
                self._say(f"checkpoint {self._prefix}{name} is removed: {manifest}")
            else:
                unneeded |= {entry.sha256 for entry in manifest.files}
            self._place.delete(self._prefix + name)
        if not self._is_swept:  # what a killed process has left behind; later on only what this one knows of
            unneeded |= self._place.sizes(self._prefix + _FILES).keys()
            self._place.sweep(self._prefix)
            self._is_swept = True
        for digest in sorted(unneeded - needed):
            self._place.delete(self._prefix + _FILES + digest)


class FolderPlace:
    """A folder on the disk of the stores. Table files are hard links: they cost nothing as long as the store has them too."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sizes(self, folder: str) -> dict[str, int]:
        try:
            return {entry.name: entry.stat().st_size for entry in os.scandir(self.path / folder) if entry.is_file()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateError(f"{self.path / folder} cannot be listed: {error}") from error

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise StateError(f"{self.path / name} cannot be read: {error}") from error

    def write(self, name: str, content: bytes) -> None:
        target = self.path / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            written = target.with_name(target.name + _NEW)
            with written.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            written.replace(target)
        except OSError as error:
            raise StateError(f"{target} cannot be written: {error}") from error

    def put(self, name: str, source: Path) -> None:
        target = self.path / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            _link_or_copy(source, target, is_table=source.suffix == _TABLE)
        except OSError as error:
            raise StateError(f"{target} cannot be written: {error}") from error

    def get(self, name: str, target: Path) -> None:
        source = self.path / name
        try:
            _link_or_copy(source, target, is_table=target.suffix == _TABLE)
        except OSError as error:
            raise StateError(f"{source} cannot be read: {error}") from error

    def delete(self, name: str) -> None:
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"{self.path / name} cannot be deleted: {error}") from error

    def sweep(self, folder: str) -> None:
        for left in (self.path / folder).glob(f"{_PREFIX}*{_NEW}"):
            self.delete(f"{folder.rstrip('/')}/{left.name}")


class RemotePlace:
    """A folder wherever `state.remote` reaches. Whatever goes wrong there, its caller goes on without this place."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def sizes(self, folder: str) -> dict[str, int]:
        with self._translated():
            return self._folder.child(folder.strip("/")).sizes()

    def read(self, name: str) -> bytes:
        with self._translated():
            return self._folder.read(name)

    def write(self, name: str, content: bytes) -> None:
        with self._translated():
            self._folder.write(name, content)

    def put(self, name: str, source: Path) -> None:
        with self._translated(), source.open("rb") as read, self._folder.create(name) as written:
            shutil.copyfileobj(read, written, _CHUNK)

    def get(self, name: str, target: Path) -> None:
        with self._translated(), self._folder.open(name) as read, target.open("wb") as written:
            shutil.copyfileobj(read, written, _CHUNK)

    def delete(self, name: str) -> None:
        with self._translated():
            self._folder.delete(name)

    def sweep(self, folder: str) -> None:
        with self._translated():
            self._folder.sweep(folder.strip("/"))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StateError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise StateError(f"{self._folder.url}: {type(error).__name__}: {error}") from error


class Digests:
    """The sha256 of files; table files never change, so theirs are remembered by what identifies them on the disk."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], str] = {}

    def describe(self, folder: Path, task: int, position: Position) -> Manifest:
        """Return the manifest of the store's copy in a folder."""
        entries: list[Entry] = []
        known: dict[tuple[int, int, int], str] = {}
        for path in sorted(folder.iterdir()):
            found = path.stat()
            what = (found.st_ino, found.st_size, found.st_mtime_ns)
            digest = self._known.get(what) or sha256_of(path)
            if path.suffix == _TABLE:
                known[what] = digest
            entries.append(Entry(path.name, digest, found.st_size))
        self._known = known
        return Manifest(FORMAT, task, position.identity.hex(), position.next_offset, position.time_ms, tuple(entries))


def newest_first(manifests: Sequence[tuple[Shelf, Manifest]]) -> list[tuple[Shelf, Manifest]]:
    """Return checkpoints of several shelves, the furthest first; among equals the order of the shelves stays."""
    return sorted(manifests, key=lambda found: -found[1].next_offset)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _link_or_copy(source: Path, target: Path, *, is_table: bool) -> None:
    if is_table:
        try:
            target.hardlink_to(source)
            return
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without hard links
            pass
    shutil.copyfile(source, target)

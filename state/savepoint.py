"""The savepoint format: a folder that holds all that an app knows, without any library's files in it.

    before-upgrade/
      0-5f….entries … 3-5f….entries     the state of each task, named in the metadata (the attempt's id keeps two at once apart)
      _metadata.json                    written last: a folder without it is no savepoint

`_metadata.json` is the `Manifest` below as JSON. An `.entries` file is

    "SFSP" | version 1 | for each entry, sorted by key:  length of key 4 | length of value 4 | key | value

with big-endian lengths, and keys and values as in the store (`state.keys`, `state.values`; timers are entries like any other). Key and
value of an entry are what the changelog holds too. The manifest has the SHA-256 of each file; a file that differs is refused.

The offsets of a part are where its task goes on in its inputs. With the number of partitions N, the entry of a key stands in the part
`hash % N`, the hash standing in its store key (design: formats carry a version, and the hash).
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from struct import Struct as Layout
from typing import Any, BinaryIO

import msgspec

from state.errors import StateError
from state.remote import Folder

FORMAT = 1
METADATA = "_metadata.json"
_MAGIC = b"SFSP\x01"
_LENGTHS = Layout(">II")
_BUFFER_BYTES = 1 << 20


class StateNote(msgspec.Struct, frozen=True):
    """A state that a savepoint may hold entries of: its name decides about the store id, its kind about where the hash stands."""

    name: str
    kind: str


class Part(msgspec.Struct, frozen=True):
    """The state of one task.

    Attributes:
        offsets: Next offset of each source topic and of the control topic, in the partition with the task's number.
        watermarks: Watermark of each input ("pipeline/topic"), UTC milliseconds.
        pause_ms: How long the task took no input.
    """

    number: int
    file: str
    entries: int
    file_bytes: int
    sha256: str
    offsets: dict[str, int]
    watermarks: dict[str, int] = {}
    pause_ms: int = 0


class Manifest(msgspec.Struct, frozen=True):
    """What a savepoint is.

    Attributes:
        signatures: Stateful operators ("pipeline/operator") and what they keep.
        sources: Source topics, and for each partition where it ended when the savepoint was taken.
        states: The states of all tasks, those included that an operator opens only when it needs them.
    """

    format: int
    name: str
    app: str
    epoch: int
    partitions: int
    created_ms: int
    who: str
    why: str
    signatures: dict[str, str]
    sources: dict[str, list[int]]
    states: list[StateNote]
    parts: list[Part]

    @property
    def entries(self) -> int:
        """Number of entries of all tasks."""
        return sum(part.entries for part in self.parts)

    @property
    def file_bytes(self) -> int:
        """Size of all files."""
        return sum(part.file_bytes for part in self.parts)

    @property
    def pause_ms(self) -> int:
        """The longest pause of a task."""
        return max((part.pause_ms for part in self.parts), default=0)


class EntriesWriter:
    """Writes an `.entries` file; the caller gives entries in key order."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = sha256()
        self.entries = 0
        self.file_bytes = 0
        self._write(_MAGIC)

    def add(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Write some entries."""
        pieces: list[bytes] = []
        for key, value in entries:
            pieces += (_LENGTHS.pack(len(key), len(value)), key, value)
            self.entries += 1
        self._write(b"".join(pieces))

    def digest(self) -> str:
        """Return the SHA-256 of everything written."""
        return self._hash.hexdigest()

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self.file_bytes += len(content)


def read_entries(folder: Folder, part: Part) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a part, in key order.

    Raises:
        StateError: The file is missing, torn, or not the one that was written; some entries may have been given before that is known.
    """
    digest = sha256()
    with folder.open(part.file) as file:

        def take(size: int) -> bytes:
            content: bytes = file.read(size)
            digest.update(content)
            if len(content) != size:
                raise _damaged(folder, part, "it is cut off")
            return content

        if take(len(_MAGIC)) != _MAGIC:
            raise _damaged(folder, part, "it is not a file of this format")
        for _ in range(part.entries):
            key_size, value_size = _LENGTHS.unpack(take(_LENGTHS.size))
            yield take(key_size), take(value_size)
        if file.read(1):
            raise _damaged(folder, part, "it is longer than it was")
    if digest.hexdigest() != part.sha256:
        raise _damaged(folder, part, "its checksum is another one")


def verify_savepoint(folder: Folder) -> Manifest:
    """Read everything of a savepoint, and return its manifest.

    Raises:
        StateError: It is incomplete or damaged; the message names the file.
    """
    manifest = read_manifest(folder)
    for part in manifest.parts:
        digest, size = sha256(), 0
        with folder.open(part.file) as file:
            while content := file.read(_BUFFER_BYTES):
                digest.update(content)
                size += len(content)
        if size != part.file_bytes:
            raise _damaged(folder, part, f"it has {size} bytes instead of {part.file_bytes}")
        if digest.hexdigest() != part.sha256:
            raise _damaged(folder, part, "its checksum is another one")
    return manifest


def read_manifest(folder: Folder) -> Manifest:
    """Return the manifest of a savepoint.

    Raises:
        StateError: There is none, or it is of another format.
    """
    if METADATA not in folder.names():
        raise StateError(f"{folder.url} is no savepoint: it has no {METADATA}, which is written last")
    raw = folder.read(METADATA)
    try:
        known: Any = msgspec.json.decode(raw)
        if not isinstance(known, dict) or known.get("format") != FORMAT:
            raise StateError(f"{folder.url}: the savepoint has format {_format_of(known)}; this version reads format {FORMAT}")
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise StateError(f"{folder.url}: {METADATA} is damaged: {error}") from error
    if sorted(part.number for part in manifest.parts) != list(range(manifest.partitions)):
        raise StateError(f"{folder.url}: {METADATA} does not have the {manifest.partitions} parts of its partitions")
    return manifest


def write_manifest(folder: Folder, manifest: Manifest) -> None:
    """Make a folder a savepoint; every file must be there."""
    folder.write(METADATA, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def list_savepoints(folder: Folder) -> list[Manifest | str]:
    """Return the savepoints in a folder, the oldest first; the name of a sub-folder that is none (incomplete or damaged)."""
    names = sorted({name.partition("/")[0] for name in folder.names() if "/" in name})
    found: list[Manifest | str] = []
    for name in names:
        try:
            found.append(read_manifest(folder.child(name)))
        except StateError:
            found.append(name)
    return sorted(found, key=lambda one: (0, 0, one) if isinstance(one, str) else (1, one.created_ms, one.name))


def _damaged(folder: Folder, part: Part, why: str) -> StateError:
    return StateError(f"{folder.url}/{part.file} is damaged: {why}; the savepoint cannot be used")


def _format_of(known: Any) -> Any:
    return known.get("format") if isinstance(known, dict) else None

"""The RocksDB store: one database a task, in one folder. The only module that imports rocksdict.

    memory = RocksMemory()                                   # one for all stores of the process
    store = RocksStore(Path("var/state/shop/3"), memory=memory)
    store.apply(changes, Position(identity, next_offset=918, time_ms=now))

- Changes and position go into one WriteBatch, so they can only be there together. The position lies under the empty key, which is
  below every store key and never shown.
- The write-ahead log is on, without a sync: what was applied survives the end of the process, and a crash of the machine at most
  takes the store back to an earlier position, which a restore makes good.
- RocksDB is told to be small, since a process holds up to 48 of these: block cache and write buffers are shared (`RocksMemory`),
  and each store holds at most 64 files open.
- rocksdict's own iterators end without a word where a block is damaged, so scans use the bare iterator and ask for its status.
- A restore writes much and reads nothing. For that (`load`) what is in memory is a list that is sorted when it is written, instead of a
  skip list, in small pieces that fit into a processor's cache, without a log, and files are merged later: less than half of the work.
  What is lost with the process is what was not flushed, the position with it.
- What a load leaves is compacted some time after the last load of the process (`state.rocks_loads`).
- An iterator points to the bound in its `ReadOptions` and does not keep them alive: a scan holds them to its end.
- An iterator that is still alive keeps the folder locked after `close`; the store therefore ends its scans when it is closed.

Sources: RocksDB wiki, "Basic operations" (iterators, status), "WAL recovery modes", "Write buffer manager", "Checkpoints".
"""

import contextlib
import shutil
import time  # noqa: TID251  # a store is I/O: it waits for the folder's lock
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from struct import Struct as Layout
from threading import Lock  # noqa: TID251  # flush and checkpoint run in a thread
from typing import cast
from weakref import WeakSet

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    DBRecoveryMode,
    MemtableFactory,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from state.errors import DiskError, StateError
from state.rocks_loads import Loads
from state.store import Change, Position

_POSITION_KEY = b""
_POSITION = Layout(">Bqq")
_POSITION_VERSION = 1
_RETRY_S = 0.1
_MIB = 1 << 20
_METADATA_BYTES = 64 << 10
_LOAD_BUFFER_BYTES = 2 * _MIB
_LOADED_FILES = 32
_WAITING_FILES = 48
_FILES = "rocksdb.num-files-at-level0"


class RocksMemory:
    """Memory that the stores of a process share.

    Args:
        cache_bytes: For blocks read from files, index and filter blocks included.
        write_buffers_bytes: For what has not been written to files yet; beyond that the largest store flushes.
    """

    def __init__(self, *, cache_bytes: int = 64 * _MIB, write_buffers_bytes: int = 64 * _MIB) -> None:
        # The usual cache locks a shard for each look-up, and a read makes several: it took up to twice the time.
        self.cache = Cache.new_hyper_clock_cache(cache_bytes, 0)
        self.write_buffers = WriteBufferManager(write_buffers_bytes, False)
        self.loads = Loads()


class RocksStore:
    """A `Store` in a folder, which is made if it does not exist.

    `flush` and `checkpoint` may run in another thread; `close` waits for them. Everything else is for one thread.

    Args:
        memory: Shared memory; without it the store has a little of its own.
        lock_wait_s: How long to wait for another process to let go of the folder (one that is being stopped, as a rule).
    Raises:
        StateError: The folder is held by another process, or what is in it cannot be used: then `erase` it and restore.
    """

    def __init__(self, path: Path, *, memory: RocksMemory | None = None, lock_wait_s: float = 5.0) -> None:
        self.path = path
        self._memory = memory or RocksMemory(cache_bytes=8 * _MIB, write_buffers_bytes=16 * _MIB)
        self._lock_wait_s = lock_wait_s
        self._scans: WeakSet[Generator[tuple[bytes, bytes], None, None]] = WeakSet()
        self._slow = Lock()
        self._waits_to_compact = False
        self._db: Rdict | None = None
        self._open()

    @property
    def position(self) -> Position:
        return self._position

    def get(self, key: bytes) -> bytes | None:
        if not key:
            return None
        db = self._opened()
        try:
            value: bytes | None = db.get(key)
        except Exception as error:  # the driver raises nothing more specific
            raise self._unusable("cannot be read", error) from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        db = self._opened()
        try:
            values = cast(list[bytes | None], db.get([*keys]))
        except Exception as error:  # the driver raises nothing more specific
            raise self._unusable("cannot be read", error) from error
        return values

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        options = ReadOptions()
        options.set_iterate_upper_bound(high)
        db = self._opened()
        try:
            entries = db.iter(options)
            entries.seek(low or b"\0")
        except Exception as error:  # the driver raises nothing more specific
            raise self._unusable("cannot be read", error) from error
        scan = self._entries(entries, options)
        self._scans.add(scan)
        return scan

    def apply(self, changes: Iterable[Change], position: Position) -> None:
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes:
            assert key, "the empty key is the position's"
            if value is None:
                delete(key)
            else:
                put(key, value)
        put(_POSITION_KEY, _POSITION.pack(_POSITION_VERSION, position.next_offset, position.time_ms) + position.identity)
        db = self._opened()
        try:
            db.write(batch)
        except Exception as error:  # the driver raises nothing more specific
            raise self._unusable("cannot be written", error) from error
        self._position = position
        if self._waits_to_compact and (self._memory.loads.over() or (db.property_int_value(_FILES) or 0) > _WAITING_FILES):
            self._compact(db)

    def load(self) -> None:
        self.close()
        self._memory.loads.begin(self)
        self._open(_load_options(self._memory))
        unlogged = WriteOptions()
        unlogged.disable_wal = True  # type: ignore[method-assign, assignment]  # the driver's hints take the setter for a method
        self._opened().set_write_options(unlogged)

    def loaded(self) -> None:
        self.flush()
        self._close()
        uncompacted = _options(self._memory)
        uncompacted.set_disable_auto_compactions(True)
        self._open(uncompacted)
        self._waits_to_compact = True
        self._memory.loads.end(self)

    def flush(self) -> None:
        with self._slow:
            db = self._opened()
            try:
                db.flush()
            except Exception as error:  # the driver raises nothing more specific
                raise self._unusable("cannot be flushed", error) from error

    def checkpoint(self, folder: Path) -> None:
        """Write a consistent copy; files are hard links as long as the folder is on the same file system."""
        with self._slow:
            db = self._opened()
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                Checkpoint(db).create_checkpoint(str(folder))
            except Exception as error:  # the driver raises nothing more specific
                raise StateError(f"no checkpoint of {self.path} could be written to {folder}: {error}") from error

    def adopt(self, folder: Path) -> None:
        self.close()
        erase(self.path)
        try:
            folder.rename(self.path)
        except OSError as error:
            raise StateError(f"{folder} could not take the place of state folder {self.path}: {error}") from error
        self._open()

    def clear(self) -> None:
        self.close()
        erase(self.path)
        self._open()

    def close(self) -> None:
        self._close()
        self._memory.loads.end(self)

    def _close(self) -> None:
        with self._slow:
            self._waits_to_compact = False
            for scan in list(self._scans):
                scan.close()
            db, self._db = self._db, None
            if db is None:
                return
            # If what is in memory cannot be written (a full disk), the store is behind as after a kill -9, and closed all the same.
            with contextlib.suppress(Exception):
                db.close()

    def _open(self, options: Options | None = None) -> None:
        deadline = time.monotonic() + self._lock_wait_s
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                wanted = options or _options(self._memory)
                # Given for the column family too: else the driver takes those that the folder was last opened with.
                self._db = Rdict(str(self.path), wanted, {"default": wanted})
                break
            except Exception as error:  # the driver raises nothing more specific
                if not _is_held(error):
                    raise self._unusable("cannot be opened", error) from error
                if time.monotonic() >= deadline:
                    raise StateError(
                        f"state folder {self.path} is held by another process; stop that one, or give this worker a state folder of its own"
                    ) from error
            time.sleep(_RETRY_S)
        try:
            self._position = _decode_position(self._db.get(_POSITION_KEY))
        except Exception as error:
            self.close()
            raise self._unusable("cannot be read", error) from error

    def _opened(self) -> Rdict:
        if self._db is None:
            raise StateError(f"state folder {self.path} is closed")
        return self._db

    def _compact(self, db: Rdict) -> None:
        """Compact from now on, in the background, as any store does."""
        with contextlib.suppress(Exception):  # it writes a file: a full disk is told where it is in the way
            db.set_options({"disable_auto_compactions": "false"})
            self._waits_to_compact = False

    def _entries(self, entries: RdictIter, options: ReadOptions) -> Generator[tuple[bytes, bytes], None, None]:
        """Yield what an iterator finds. It points into its options for the bound and does not keep them: they must live longer."""
        valid, key, value, step = entries.valid, entries.key, entries.value, entries.next
        try:
            while valid():
                yield key(), value()
                step()
            try:
                entries.status()
            except Exception as error:  # the driver raises nothing more specific
                raise self._unusable("cannot be read", error) from error
        finally:
            del valid, key, value, step, entries
            del options

    def _unusable(self, what: str, error: Exception) -> StateError:
        if any(sign in str(error) for sign in _OF_THE_MACHINE):
            return DiskError(f"state folder {self.path} {what}: {error}; make room for it, it is as it was")
        return StateError(f"state folder {self.path} {what}: {error}; delete the folder, it is restored from the changelog")


_OF_THE_MACHINE = ("No space left", "File too large", "Disk quota", "Too many open files", "Permission denied", "Read-only file system")
"""What RocksDB says of a disk or a process that has reached a limit. The store itself may be sound."""


def erase(path: Path) -> None:
    """Delete the folder of a store that is closed or cannot be opened.

    Raises:
        StateError: Another process holds it, or it cannot be deleted.
    """
    if not path.exists():
        return
    try:
        # RocksDB takes the folder's lock for this, and fails where it is held; whatever else it stumbles over is deleted below.
        Rdict.destroy(str(path))
    except Exception as error:
        if _is_held(error):
            raise StateError(f"state folder {path} cannot be deleted: another process holds it") from error
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateError(f"state folder {path} cannot be deleted: {error}") from error


def _options(memory: RocksMemory) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(memory.cache)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_bloom_filter(10, False)
    # A key that is read for the first time costs a block of each level of the index and of the filter: fewer and larger ones are less
    # work. Data blocks of 16 KiB were not: what is read of them is copied whole.
    table.set_metadata_block_size(_METADATA_BYTES)
    # In parts: the cache has shards of a MiB or so, and the index or filter of a large file as one block is more than a shard
    # holds, so it would be read from the file again for every key.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_pin_top_level_index_and_filter(True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_manager(memory.write_buffers)
    options.set_write_buffer_size(8 * _MIB)
    options.set_max_write_buffer_number(2)
    options.set_memtable_prefix_bloom_ratio(0.1)  # with the next line a filter of whole keys: most keys asked for are not in memory
    options.set_memtable_whole_key_filtering(True)
    options.set_level_zero_slowdown_writes_trigger(2 * _LOADED_FILES)  # a load leaves many files, merged beside the work
    options.set_level_zero_stop_writes_trigger(3 * _LOADED_FILES)
    options.set_max_total_wal_size(32 * _MIB)
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_compression_type(DBCompressionType.lz4())
    options.set_max_open_files(64)
    options.set_max_background_jobs(2)
    # Timers that have fired leave stretches of deletions at the front of their section: compact a file that is full of them.
    options.add_compact_on_deletion_collector_factory(10_000, 5_000, 0.5)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(_MIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def _load_options(memory: RocksMemory) -> Options:
    options = _options(memory)
    options.set_memtable_factory(MemtableFactory.vector())
    options.set_allow_concurrent_memtable_write(False)
    options.set_write_buffer_size(_LOAD_BUFFER_BYTES)
    options.set_max_write_buffer_number(4)
    options.set_level_zero_file_num_compaction_trigger(_LOADED_FILES)
    options.set_compression_per_level([DBCompressionType.none(), *[DBCompressionType.lz4()] * 6])
    return options


def _is_held(error: Exception) -> bool:
    text = str(error)
    return "LOCK" in text and ("lock hold by current process" in text or "While lock file" in text)


def _decode_position(raw: bytes | None) -> Position:
    if raw is None:
        return Position()
    if len(raw) < _POSITION.size or raw[0] != _POSITION_VERSION:
        raise StateError(f"its position {raw!r} has another format")
    _, next_offset, time_ms = _POSITION.unpack_from(raw)
    return Position(raw[_POSITION.size :], next_offset, time_ms)

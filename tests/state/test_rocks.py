"""The RocksDB store: what survives, what is noticed, and what is let go."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.runtime.stores import open_rocks_store
from state.errors import DiskError, StateError
from state.memory import MemoryStore
from state.rocks import RocksMemory, RocksStore, erase
from state.store import Change, Position

AT = Position(b"identity", 17, 1_700_000_000_000)
MANY = [(b"k%05d" % n, os.urandom(40)) for n in range(5_000)]


def held_in_another_process(path: Path) -> subprocess.Popen[bytes]:
    """Return a process that has opened a store and applied an entry two times, and now holds it."""
    program = (
        "import sys, time; from pathlib import Path; from state.rocks import RocksStore; from state.store import Position\n"
        "store = RocksStore(Path(sys.argv[1]))\n"
        "store.apply([(b'a', b'0')], Position(b'identity', 16, 1)); store.apply([(b'a', b'1')], Position(b'identity', 17, 1700000000000))\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_reopened_store_has_entries_and_position(tmp_path: Path) -> None:
    store = RocksStore(tmp_path)
    store.apply([(b"a", b"1"), (b"b", b"")], AT)
    store.close()
    store = RocksStore(tmp_path)
    assert (store.get(b"a"), store.get(b"b"), store.position) == (b"1", b"", AT)
    store.close()


def test_store_held_by_another_process_raises_state_error_that_says_so(tmp_path: Path) -> None:
    process = held_in_another_process(tmp_path / "s")
    try:
        with pytest.raises(StateError, match=r"/s is held by another process; stop that one"):
            RocksStore(tmp_path / "s", lock_wait_s=0.2)
        with pytest.raises(StateError, match="another process holds it"):
            erase(tmp_path / "s")
    finally:
        process.kill()
        process.communicate()


def test_process_killed_after_apply_loses_nothing_and_lets_the_waiting_one_in(tmp_path: Path) -> None:
    process = held_in_another_process(tmp_path)
    process.send_signal(signal.SIGKILL)
    store = RocksStore(tmp_path)
    process.communicate()
    assert (store.get(b"a"), store.position) == (b"1", AT)
    store.close()


def test_write_ahead_log_torn_at_its_end_goes_back_to_an_earlier_position(tmp_path: Path) -> None:
    process = held_in_another_process(tmp_path)
    process.kill()
    process.communicate()
    (log,) = tmp_path.glob("*.log")
    os.truncate(log, log.stat().st_size - 3)
    store = RocksStore(tmp_path)
    assert (store.get(b"a"), store.position) == (b"0", Position(b"identity", 16, 1))
    store.close()


def filled(path: Path) -> Path:
    """Return the one table file of a store with many entries."""
    store = RocksStore(path)
    store.apply(MANY, AT)
    store.flush()
    store.close()
    (table,) = path.glob("*.sst")
    return table


@pytest.mark.parametrize("damage", ["missing table", "cut table", "missing current", "cut manifest", "a file"])
def test_open_of_a_damaged_folder_raises_state_error_and_erase_makes_it_new(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s"
    table = filled(path)
    if damage == "missing table":
        table.unlink()
    elif damage == "cut table":
        os.truncate(table, table.stat().st_size - 100)
    elif damage == "missing current":
        (path / "CURRENT").unlink()
    elif damage == "cut manifest":
        (manifest,) = path.glob("MANIFEST-*")
        os.truncate(manifest, 10)
    else:
        path = tmp_path / "file"
        path.touch()
    with pytest.raises(StateError, match=f"{path}.* delete the folder"):
        RocksStore(path)
    if path.is_dir():
        erase(path)
        store = RocksStore(path)
        assert store.position == Position()
        store.close()


def test_damaged_block_is_noticed_by_get_and_by_scan(tmp_path: Path) -> None:
    table = filled(tmp_path)
    with table.open("r+b") as file:
        file.seek(table.stat().st_size // 2)
        file.write(b"damage" * 10)
    store = RocksStore(tmp_path)
    with pytest.raises(StateError, match="cannot be read"):
        list(store.scan(b"k", b"l"))
    with pytest.raises(StateError, match="cannot be read"):
        [store.get(key) for key, _ in MANY]
    with pytest.raises(StateError, match="cannot be read"):
        store.get_many([key for key, _ in MANY])
    store.clear()
    assert list(store.scan(b"k", b"l")) == []
    store.close()


def test_position_of_another_format_raises_state_error(tmp_path: Path) -> None:
    store = RocksStore(tmp_path)
    assert store._db is not None
    store._db.put(b"", b"\x09" + bytes(16))
    store.close()
    with pytest.raises(StateError, match="another format"):
        RocksStore(tmp_path)


def test_checkpoint_is_a_store_of_its_own_as_of_then(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "s")
    store.apply(MANY, AT)
    store.checkpoint(tmp_path / "copies" / "c")
    store.apply([(b"k00000", None)], Position(b"identity", 18, 0))
    copy = RocksStore(tmp_path / "copies" / "c")
    assert copy.position == AT
    assert list(copy.scan(b"", b"\xff")) == MANY
    tables = {path.stat().st_ino for path in (tmp_path / "s").glob("*.sst")}
    assert tables & {path.stat().st_ino for path in (tmp_path / "copies" / "c").glob("*.sst")}, "files are hard links, not copies"
    with pytest.raises(StateError, match="no checkpoint"):
        store.checkpoint(tmp_path / "copies" / "c")
    copy.close()
    store.close()


def test_checkpoint_of_a_memory_store_raises_state_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="memory store"):
        MemoryStore().checkpoint(tmp_path / "c")


def test_scan_keeps_to_its_bound_whatever_memory_is_used_meanwhile(tmp_path: Path) -> None:
    store = RocksStore(tmp_path)
    store.apply([(bytes((section, n)), b"v") for section in range(1, 40) for n in range(20)], AT)
    for section in range(1, 39):
        scan = store.scan(bytes((section,)), bytes((section + 1,)))
        others = [os.urandom(section) for _ in range(200)]  # what the bound's memory would be used for, were it free
        assert [key for key, _ in scan] == [bytes((section, n)) for n in range(20)]
        del others
    store.close()


def test_close_with_scans_under_way_lets_go_of_the_folder(tmp_path: Path) -> None:
    store = RocksStore(tmp_path)
    store.apply(MANY, AT)
    begun, unused = store.scan(b"", b"\xff"), store.scan(b"", b"\xff")
    next(begun)
    store.close()
    RocksStore(tmp_path, lock_wait_s=0).close()
    assert list(begun) == list(unused) == []


@pytest.mark.thorough
def test_open_and_close_many_times_leaks_no_file_handles(tmp_path: Path) -> None:
    memory = RocksMemory(cache_bytes=1 << 20, write_buffers_bytes=1 << 20)
    counts = []
    for _ in range(50):
        store = RocksStore(tmp_path, memory=memory)
        store.apply([(b"a", b"1")], AT)
        next(store.scan(b"", b"\xff"))
        store.close()
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[-1] <= counts[4]


def test_close_on_a_full_disk_lets_go_of_the_folder_and_loses_only_what_was_refused(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store")
    store.apply([(b"k", b"1")], AT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(DiskError, match="cannot be written"):
            store.apply([(b"k", b"2")], Position(AT.identity, 18, AT.time_ms))
        store.close()
        with pytest.raises(DiskError, match=r"cannot be opened.*make room"):
            open_rocks_store(tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with_room = RocksStore(tmp_path / "store")
    assert (with_room.get(b"k"), with_room.position.next_offset) == (b"1", AT.next_offset)
    with_room.close()


def test_load_is_there_afterwards_and_reads_as_usual(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store")
    store.apply([(b"old", b"1"), (b"gone", b"1")], Position(b"id", 1, 10))
    store.load()
    for turn in range(20):
        changes: list[Change] = [(b"%08d" % number, b"%d" % turn * 50) for number in range(0, 40_000, turn + 1)]
        store.apply([*changes, (b"gone", None)], Position(b"id", turn + 2, 20))
    store.loaded()
    assert store.position == Position(b"id", 21, 20)
    assert (store.get(b"old"), store.get(b"gone")) == (b"1", None)
    found = dict(store.scan(b"0", b"9"))
    assert len(found) == 40_000
    assert all(found[b"%08d" % n] == b"%d" % max(t for t in range(20) if n % (t + 1) == 0) * 50 for n in range(0, 40_000, 37))
    store.apply([(b"new", b"2")], Position(b"id", 22, 30))
    store.close()
    again = RocksStore(tmp_path / "store")
    assert (again.get(b"new"), again.position.next_offset) == (b"2", 22)
    again.close()


def test_what_a_load_leaves_is_compacted_some_time_after_the_last_load_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("state.rocks_loads.QUIET_S", 0.0)
    memory = RocksMemory()
    first, second, third = (_loading(tmp_path / name, memory) for name in ("first", "second", "third"))
    first.loaded()
    second.loaded()
    _commit(first)
    assert (_files(first), _files(second)) == (6, 6), "the third is still being loaded"
    assert first.get(b"00000017") == b"x" * 100
    third.close()
    monkeypatch.setattr("state.rocks_loads.QUIET_S", 3_600.0)
    _commit(first)
    assert _files(first) == 6, "the third was loaded a moment ago"
    monkeypatch.setattr("state.rocks_loads.QUIET_S", 0.0)
    _commit(first)
    _commit(second)
    assert _in_time(lambda: _files(first) == _files(second) == 0)
    assert len(list(first.scan(b"0", b"9"))) == 6_000
    first.close()
    second.close()


def test_store_with_many_files_does_not_wait_for_other_loads(tmp_path: Path) -> None:
    memory = RocksMemory()
    first, second = (_loading(tmp_path / name, memory) for name in ("first", "second"))
    first.loaded()
    for turn in range(60):
        first.apply([(b"new", b"%d" % turn)], Position(b"id", 100 + turn, 1))
        first.flush()
    assert _in_time(lambda: _files(first) < 10)
    assert first.get(b"new") == b"59"
    assert second.position.next_offset == 6
    first.close()
    second.close()


def _loading(path: Path, memory: RocksMemory) -> RocksStore:
    """Return a store that is being loaded and has six files."""
    store = RocksStore(path, memory=memory)
    store.load()
    for turn in range(1, 7):
        store.apply([(b"%08d" % n, b"x" * 100) for n in range(turn - 1, 6_000, 6)], Position(b"id", turn, 1))
        store.flush()
    return store


def _commit(store: RocksStore) -> None:
    store.apply([(b"new", b"1")], Position(b"id", 99, 1))


def _files(store: RocksStore) -> int:
    """Return the number of files that have not been compacted."""
    assert store._db is not None  # nothing else tells
    return store._db.property_int_value("rocksdb.num-files-at-level0") or 0


def _in_time(holds: Callable[[], bool]) -> bool:
    """Wait until something holds that RocksDB's threads do; return whether it came."""
    until_s = time.monotonic() + 30
    while not holds() and time.monotonic() < until_s:
        threading.Event().wait(0.02)
    return holds()


@pytest.mark.thorough
def test_load_that_ends_with_the_process_leaves_an_earlier_position_and_what_belongs_to_it(tmp_path: Path) -> None:
    program = f"""
import os
from collections.abc import Callable
from pathlib import Path
from state.rocks import RocksStore
from state.store import Change, Position
store = RocksStore(Path({str(tmp_path / "store")!r}))
store.load()
for turn in range(1, 200):
    store.apply([(b"%08d" % (turn * 1_000 + n), b"x" * 100) for n in range(1_000)], Position(b"id", turn, 1))
os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 9
    store = RocksStore(tmp_path / "store")
    reached = store.position.next_offset
    assert 0 < reached < 199, "some of it was flushed, not all"
    assert [key for key, _ in store.scan(b"0", b"9")] == [b"%08d" % n for n in range(1_000, (reached + 1) * 1_000)]
    store.close()


def test_filters_and_indexes_are_in_parts_that_fit_into_a_shard_of_the_cache(tmp_path: Path) -> None:
    """As one block those of a file with a million keys are larger than a shard: then each read would load them again."""
    RocksStore(tmp_path).close()
    kept = max(tmp_path.glob("OPTIONS-*")).read_text()
    for setting in ("index_type=kTwoLevelIndexSearch", "partition_filters=true", "pin_top_level_index_and_filter=true"):
        assert setting in kept

"""Checkpoints in a place: written last, kept once, and refused when anything about them was changed."""

from pathlib import Path

import pytest

from state.checkpoint import Digests, Entry, FolderPlace, Manifest, RemotePlace, Shelf
from state.errors import StateError
from state.remote import open_folder
from state.rocks import RocksStore
from state.store import Position

IDENTITY = b"\x01identity"


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return folder


def describe(folder: Path, next_offset: int, identity: bytes = IDENTITY) -> Manifest:
    return Digests().describe(folder, 3, Position(identity, next_offset, 5))


def shelf_in(path: Path, kept: int = 2) -> tuple[Shelf, list[str]]:
    said: list[str] = []
    return Shelf(FolderPlace(path), "shop/3", kept=kept, say=said.append), said


def fetched(shelf: Shelf, manifest: Manifest, folder: Path) -> dict[str, bytes]:
    shelf.fetch(manifest, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_checkpoint_kept_and_fetched_is_the_same(tmp_path: Path) -> None:
    shelf, _ = shelf_in(tmp_path / "place")
    copy = write(tmp_path / "c", a_sst=b"table", CURRENT=b"x")
    kept = shelf.keep(copy, describe(copy, 7))
    assert kept is not None and (kept.files, kept.payload_bytes) == (2, 6)
    ((name, manifest),) = shelf.manifests()
    assert isinstance(manifest, Manifest)
    assert (name, manifest.position) == (kept.name, Position(IDENTITY, 7, 5))
    assert fetched(shelf, manifest, tmp_path / "back") == {"a.sst": b"table", "CURRENT": b"x"}


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_checkpoint_in_a_remote_place_is_the_same(tmp_path: Path, scheme: str) -> None:
    place = RemotePlace(open_folder(f"file://{tmp_path}/far" if scheme == "file" else f"memory://test{tmp_path}"))
    shelf = Shelf(place, "shop/3", kept=1, say=print)
    for number in (1, 2):
        copy = write(tmp_path / f"{number}", a_sst=b"table", CURRENT=b"x%d" % number)
        kept = shelf.keep(copy, describe(copy, number))
        assert kept is not None and kept.files == 3 - number
    ((_, manifest),) = shelf.manifests()
    assert isinstance(manifest, Manifest)
    assert fetched(shelf, manifest, tmp_path / "back") == {"a.sst": b"table", "CURRENT": b"x2"}
    assert len(place.sizes("shop/3")) == 3
    with pytest.raises(StateError, match="nothing"):
        place.read("shop/3/nothing")
    place.delete("shop/3/nothing")


def test_checkpoint_next_sends_only_what_is_new(tmp_path: Path) -> None:
    shelf, _ = shelf_in(tmp_path / "place")
    one = write(tmp_path / "1", a_sst=b"table", CURRENT=b"x")
    two = write(tmp_path / "2", a_sst=b"table", b_sst=b"more", CURRENT=b"x")
    shelf.keep(one, describe(one, 7))
    kept = shelf.keep(two, describe(two, 9))
    assert kept is not None and (kept.files, kept.payload_bytes) == (1, 4)


def test_checkpoint_older_ones_go_with_the_files_that_only_they_need(tmp_path: Path) -> None:
    shelf, said = shelf_in(tmp_path / "place", kept=2)
    for number in range(1, 5):
        copy = write(tmp_path / f"{number}", all_sst=b"shared", own_sst=b"own%d" % number)
        shelf.keep(copy, describe(copy, number))
    assert [manifest.next_offset for _, manifest in shelf.manifests() if isinstance(manifest, Manifest)] == [4, 3]
    assert sorted(path.read_bytes() for path in (tmp_path / "place/shop/3/files").iterdir()) == [b"own3", b"own4", b"shared"]
    assert said == []


def test_checkpoint_of_another_changelog_goes_and_what_a_killed_process_left(tmp_path: Path) -> None:
    old, _ = shelf_in(tmp_path / "place")
    copy = write(tmp_path / "1", a_sst=b"old")
    old.keep(copy, describe(copy, 900, b"another"))
    FolderPlace(tmp_path / "place").write("shop/3/files/0123", b"half an upload")
    shelf, _ = shelf_in(tmp_path / "place")
    new = write(tmp_path / "2", a_sst=b"new")
    shelf.keep(new, describe(new, 7))
    assert [manifest.next_offset for _, manifest in shelf.manifests() if isinstance(manifest, Manifest)] == [7]
    assert [path.read_bytes() for path in (tmp_path / "place/shop/3/files").iterdir()] == [b"new"]


def test_checkpoint_sweeps_what_a_killed_process_left_half_written_and_not_what_is_being_written(tmp_path: Path) -> None:
    place = RemotePlace(open_folder(f"file://{tmp_path}/far"))
    files = write(tmp_path / "far/shop/3/files", _half_part=b"half an upload")
    write(tmp_path / "far/shop/4/files", _other_part=b"of another task")
    (files.parent / ".checkpoint-1.json.part").write_bytes(b"{")
    copy = write(tmp_path / "c", a_sst=b"new")
    with place._folder.create("shop/3/files/mine") as file:
        file.write(b"m")
        Shelf(place, "shop/3", kept=1, say=print).keep(copy, describe(copy, 7))
    digest = describe(copy, 7).files[0].sha256
    found = {path.relative_to(tmp_path / "far").as_posix() for path in (tmp_path / "far").rglob("*") if path.is_file()}
    manifest = f"shop/3/{describe(copy, 7).name}"
    assert found == {f"shop/3/files/{digest}", "shop/3/files/mine", manifest, "shop/4/files/.other.part"}


def test_checkpoint_sweeps_a_half_written_manifest_beside_the_stores(tmp_path: Path) -> None:
    left = write(tmp_path / "place/shop/3") / "checkpoint-1.json.new"
    left.write_bytes(b"{")
    shelf, _ = shelf_in(tmp_path / "place")
    copy = write(tmp_path / "c", a_sst=b"new")
    shelf.keep(copy, describe(copy, 7))
    assert not left.exists() and len(list(shelf.manifests())) == 1


def test_checkpoint_stopped_before_its_manifest_is_not_there(tmp_path: Path) -> None:
    shelf, _ = shelf_in(tmp_path / "place")
    copy = write(tmp_path / "c", a_sst=b"1", b_sst=b"2")
    answers = iter([False, False, True])
    assert shelf.keep(copy, describe(copy, 7), is_stopped=lambda: next(answers)) is None
    assert list(shelf.manifests()) == []


def test_checkpoint_table_files_are_hard_links_and_others_copies(tmp_path: Path) -> None:
    shelf, _ = shelf_in(tmp_path / "place")
    copy = write(tmp_path / "c", a_sst=b"table", CURRENT=b"x")
    shelf.keep(copy, describe(copy, 7))
    ((_, manifest),) = shelf.manifests()
    assert isinstance(manifest, Manifest)
    shelf.fetch(manifest, tmp_path / "back")
    assert (tmp_path / "back/a.sst").samefile(copy / "a.sst")
    (tmp_path / "back/CURRENT").write_bytes(b"written by the store")
    assert fetched(shelf, manifest, tmp_path / "again")["CURRENT"] == b"x"


@pytest.mark.parametrize("damage", ["flipped", "truncated", "longer", "missing"])
@pytest.mark.parametrize("name", ["a.sst", "CURRENT"])
def test_checkpoint_damaged_file_is_refused(tmp_path: Path, damage: str, name: str) -> None:
    shelf, _ = shelf_in(tmp_path / "place")
    copy = write(tmp_path / "c", a_sst=b"some table", CURRENT=b"MANIFEST-1")
    manifest = describe(copy, 7)
    shelf.keep(copy, manifest)
    entry = next(entry for entry in manifest.files if entry.name == name)
    damage_file(tmp_path / "place/shop/3/files" / entry.sha256, damage)
    with pytest.raises(StateError, match="cannot be read" if damage == "missing" else name):
        shelf.fetch(manifest, tmp_path / "back")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "longer", "empty"])
def test_checkpoint_damaged_manifest_is_refused_wherever_it_is(tmp_path: Path, damage: str) -> None:
    copy = write(tmp_path / "c", a_sst=b"table")
    raw = describe(copy, 7).encode()
    for at in range(0, len(raw), 7):
        path = tmp_path / "manifest"
        path.write_bytes(raw)
        damage_file(path, damage, at)
        with pytest.raises(StateError, match="torn or was changed"):
            Manifest.decode(path.read_bytes())


def test_checkpoint_of_a_later_format_is_refused() -> None:
    manifest = Manifest(2, 3, "00", 7, 5, (Entry("a", "0" * 64, 1),))
    with pytest.raises(StateError, match="format 2, this version reads format 1"):
        Manifest.decode(manifest.encode())


def test_checkpoint_file_whose_name_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    shelf, _ = shelf_in(tmp_path / "place")
    with pytest.raises(StateError, match="leads elsewhere"):
        shelf.fetch(Manifest(1, 3, "00", 7, 5, (Entry("../a", "0" * 64, 1),)), tmp_path / "back")


def test_checkpoint_of_a_store_adopted_by_another_is_that_store(tmp_path: Path) -> None:
    shelf, _ = shelf_in(tmp_path / "place")
    store = RocksStore(tmp_path / "store")
    store.apply([(b"%05d" % n, b"v%d" % n) for n in range(10_000)], Position(IDENTITY, 7, 5))
    store.checkpoint(tmp_path / "c")
    manifest = Digests().describe(tmp_path / "c", 3, store.position)
    shelf.keep(tmp_path / "c", manifest)
    store.apply([(b"00000", None)], Position(IDENTITY, 8, 6))
    other = RocksStore(tmp_path / "other")
    other.apply([(b"foreign", b"1")], Position(b"x", 1, 1))
    shelf.fetch(manifest, tmp_path / "back")
    other.adopt(tmp_path / "back")
    assert (other.position, other.get(b"00000"), other.get(b"foreign")) == (Position(IDENTITY, 7, 5), b"v0", None)
    other.apply([(b"00001", b"new")], Position(IDENTITY, 9, 7))
    assert sum(1 for _ in other.scan(b"", b"\xff")) == 10_000
    assert store.get(b"00001") == b"v1"
    store.close()
    other.close()


def damage_file(path: Path, damage: str, at: int = 3) -> None:
    """Damage a file."""
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
    elif damage == "truncated":
        path.write_bytes(content[:at])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(content + b"\0")

"""Stores on disk: found again, erased when they cannot be opened, told apart by number."""

from pathlib import Path

import pytest

from engine.errors import StateError
from engine.runtime.stores import StateFolder
from state.store import Position


def test_state_folder_store_is_found_again(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "shop")
    store = folder.open(3)
    store.apply([(b"k", b"v")], Position(b"id", 7, 1))
    store.close()
    again = folder.open(3)
    assert (again.get(b"k"), again.position) == (b"v", Position(b"id", 7, 1))
    again.close()
    assert folder.numbers() == [3]


def test_state_folder_that_does_not_exist_has_no_numbers(tmp_path: Path) -> None:
    assert StateFolder(tmp_path / "nowhere").numbers() == []


def test_state_folder_store_that_cannot_be_opened_is_made_anew(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "shop")
    store = folder.open(0)
    store.apply([(b"k", b"v")], Position(b"id", 7, 1))
    store.close()
    for manifest in (tmp_path / "shop" / "0").glob("MANIFEST-*"):
        manifest.write_bytes(b"torn")
    again = folder.open(0)
    assert (again.get(b"k"), again.position) == (None, Position())
    again.close()


def test_state_folder_store_held_elsewhere_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StateFolder(tmp_path / "shop")
    store = folder.open(0)
    store.apply([(b"k", b"v")], Position(b"id", 7, 1))
    monkeypatch.setattr("state.rocks.time.sleep", lambda _: None)
    monkeypatch.setattr("state.rocks.time.monotonic", iter(range(0, 1_000, 10)).__next__)
    with pytest.raises(StateError, match="another process"):
        folder.open(0)
    assert store.get(b"k") == b"v"
    store.close()

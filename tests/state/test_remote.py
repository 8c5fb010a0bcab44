"""Folders for copies: a local one and one behind fsspec behave alike, and a file is there whole or not at all."""

import importlib.util
import sys
from pathlib import Path

import pytest

from state.errors import StateError, UnavailableError
from state.remote import Folder, LocalFolder, open_folder
from tests.state.far_filesystem import FarFileSystem, HttpError


@pytest.fixture(params=["local", "fsspec"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return open_folder(tmp_path / "copies")
    return open_folder(f"memory://{tmp_path.name}/copies")


def test_folder_keeps_what_is_written_by_name(folder: Folder) -> None:
    assert folder.names() == []
    folder.write("b", b"two")
    with folder.create("a/c") as file:
        file.write(b"one")
        file.write(b"!")
    assert folder.names() == ["a/c", "b"]
    assert (folder.read("a/c"), folder.child("a").read("c")) == (b"one!", b"one!")
    with folder.open("b") as file:
        assert (file.read(2), file.read()) == (b"tw", b"o")
    folder.write("b", b"new")
    assert folder.read("b") == b"new"


def test_folder_deletes_files_and_itself(folder: Folder) -> None:
    folder.write("a", b"1")
    folder.write("b", b"2")
    folder.delete("a")
    folder.delete("never-there")
    assert folder.names() == ["b"]
    folder.remove()
    folder.remove()
    assert folder.names() == []


def test_folder_tells_sizes(folder: Folder) -> None:
    assert folder.sizes() == {}
    folder.write("files/a", b"12345")
    folder.write("b", b"")
    assert folder.sizes() == {"b": 0, "files/a": 5}


def test_folder_missing_file_is_named(folder: Folder) -> None:
    folder.write("a", b"1")
    with pytest.raises(StateError, match=r"no file _metadata\.json in .*copies"):
        folder.read("_metadata.json")
    with pytest.raises(StateError, match="no file gone"), folder.open("gone"):
        pass


def test_folder_shows_no_file_whose_writing_failed(folder: Folder) -> None:
    def fail() -> None:
        with folder.create("a") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert folder.names() == []


def test_open_folder_takes_paths_and_file_urls_without_any_library(tmp_path: Path) -> None:
    for url in (tmp_path / "x", str(tmp_path / "x"), f"file://{tmp_path}/x"):
        folder = open_folder(url)
        assert isinstance(folder, LocalFolder)
        assert folder.path == tmp_path / "x"


def test_open_folder_refuses_a_protocol_that_nobody_knows() -> None:
    with pytest.raises(StateError, match="nowhere://there/x cannot be reached"):
        open_folder("nowhere://there/x")


@pytest.mark.parametrize(("url", "package"), [("gs://bucket/x", "gcsfs"), ("s3://bucket/x", "s3fs")])
def test_open_folder_names_the_package_that_a_service_needs(url: str, package: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed here")
    with pytest.raises(StateError, match=rf"{url} cannot be reached: .*{package}"):
        open_folder(url)


def test_open_folder_without_fsspec_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(StateError, match=r's3://bucket/x needs fsspec: pip install "streamforge\[checkpoints\]"'):
        open_folder("s3://bucket/x")


def test_folder_behind_a_service_whose_errors_are_its_own_is_unavailable() -> None:
    FarFileSystem.anew()
    folder = open_folder("far://bucket/x")
    folder.write("a", b"one")

    def away(request: str, name: str) -> None:
        raise HttpError(f"503 for {request}")

    FarFileSystem.on_request = away
    for use in (lambda: folder.read("a"), lambda: folder.write("b", b"two"), folder.names, lambda: folder.open("a").__enter__()):
        with pytest.raises(UnavailableError, match="far://bucket/x cannot be reached: HttpError: 503"):
            use()
    FarFileSystem.anew()


def test_folder_errors_of_whoever_reads_a_file_are_left_as_they_are() -> None:
    FarFileSystem.anew()
    folder = open_folder("far://bucket/x")
    folder.write("a", b"one")

    def use() -> None:
        with folder.open("a") as file:
            assert file.read() == b"one"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()

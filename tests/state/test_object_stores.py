"""Checkpoints in s3:// and gs:// through s3fs and gcsfs, on emulators of both services in this process.

The packages are no dependency of the project, so that these tests are passed over where they are missing, with what would run them:

    pip install s3fs 'moto[server]' gcsfs gcp-storage-emulator && python -m pytest tests/state/test_object_stores.py
"""

import importlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from state.checkpoint import Digests, Manifest, RemotePlace, Shelf
from state.errors import StateError
from state.remote import Folder, open_folder
from state.rocks import RocksStore
from state.store import Position

pytestmark = pytest.mark.slow
IDENTITY = b"\x01identity"


def needed(*modules: str) -> list[Any]:
    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        pytest.skip(f"NOT TESTED: {error.name} is missing; pip install s3fs 'moto[server]' gcsfs gcp-storage-emulator")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server, s3fs = needed("moto.server", "s3fs")
    service = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    service.start()
    _, port = service.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "of-the-emulator")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
        yield "s3://bucket"
    service.stop()


@pytest.fixture(scope="module")
def gs() -> Iterator[str]:
    server, _ = needed("gcp_storage_emulator.server", "gcsfs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = server.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    service.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield "gs://bucket"
    service.stop()


@pytest.fixture(params=["s3", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Folder]:
    """Return what opens the test's folder, as one process after another does."""
    url = f"{request.getfixturevalue(request.param)}/{tmp_path.name}"
    return lambda: open_folder(url)


def test_folder_keeps_lists_replaces_and_deletes(place: Callable[[], Folder]) -> None:
    folder, other = place().child("f"), place().child("f")
    assert folder.names() == []
    folder.write("b", b"two")
    with folder.create("a/c") as file:
        file.write(b"one!")
    assert folder.sizes() == {"a/c": 4, "b": 3}
    other.write("late", b"")  # what is listed is never from a cache
    other.write("b", b"new")
    assert folder.sizes() == {"a/c": 4, "b": 3, "late": 0}
    assert (folder.read("b"), folder.child("a").read("c")) == (b"new", b"one!")
    with pytest.raises(StateError, match="no file gone"):
        folder.read("gone")
    with pytest.raises(ZeroDivisionError), folder.create("half"):
        raise ZeroDivisionError
    folder.delete("b")
    folder.delete("never-there")
    assert folder.names() == ["a/c", "late"]
    folder.remove()
    folder.remove()
    assert folder.names() == []


def test_folder_takes_files_of_several_parts(place: Callable[[], Folder]) -> None:
    content = bytes(range(256)) * 50_000
    with place().create("large") as file:
        file.write(content)
    with place().open("large") as file:
        assert file.read() == content


def test_checkpoints_of_a_store_are_sent_kept_refused_when_damaged_and_begun_from(place: Callable[[], Folder], tmp_path: Path) -> None:
    said: list[str] = []
    store, digests = RocksStore(tmp_path / "store"), Digests()
    shelf = Shelf(RemotePlace(place()), "shop/3", kept=2, say=said.append)
    sent = []
    for number in range(1, 5):
        store.apply([(b"k%d" % n, b"v%d" % number) for n in range(number * 100)], Position(IDENTITY, number, 5))
        store.checkpoint(tmp_path / f"c{number}")
        kept = shelf.keep(tmp_path / f"c{number}", digests.describe(tmp_path / f"c{number}", 3, store.position))
        assert kept is not None
        sent.append(kept.files)
    store.close()
    again = Shelf(RemotePlace(place()), "shop/3", kept=2, say=said.append)  # another worker
    (_, newest), (_, before) = again.manifests()
    assert isinstance(newest, Manifest) and isinstance(before, Manifest)
    assert ([newest.next_offset, before.next_offset], said) == ([4, 3], [])
    assert sent[-1] < len(newest.files), "only what is new is sent"
    again.fetch(newest, tmp_path / "back")
    restored = RocksStore(tmp_path / "back")
    assert (restored.position, restored.get(b"k399"), restored.get(b"k0")) == (Position(IDENTITY, 4, 5), b"v4", b"v4")
    restored.close()
    own = min({entry.sha256 for entry in newest.files} - {entry.sha256 for entry in before.files})
    files = place().child("shop/3/files")
    whole = files.read(own)
    for damaged in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
        files.write(own, damaged)
        with pytest.raises(StateError):
            again.fetch(newest, tmp_path / f"damaged-{len(damaged)}")
    again.fetch(before, tmp_path / "one-before")
    restored = RocksStore(tmp_path / "one-before")
    assert (restored.position, restored.get(b"k299"), restored.get(b"k399")) == (Position(IDENTITY, 3, 5), b"v3", None)
    restored.close()

"""`far://bucket/folder`: a file system behind fsspec that is as far away as an object store, and fails as one does.

Its errors are no `OSError`, as those of gcsfs and botocore are not. What it does to the next requests is set on the class.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class HttpError(Exception):
    """What the service answers with."""


class FarFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """Objects in memory, and a line to them that a test may cut, tear or slow down.

    Attributes:
        on_request: Called with each request ("put", "get", "write", "list") and the object's name; may raise.
        torn: Substring of names: what is sent arrives by half, "silently" (the service says that all is well) or with an error.
        gate: Sending waits until it is set.
    """

    protocol = "far"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    on_request: ClassVar[Callable[[str, str], None] | None] = None
    torn: ClassVar[tuple[str, bool] | None] = None
    gate: ClassVar[threading.Event | None] = None

    @classmethod
    def anew(cls) -> None:
        """Begin with an empty and sound service."""
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.on_request = cls.torn = cls.gate = None

    @classmethod
    def names(cls, part: str = "") -> list[str]:
        """Return the names of the objects that have something in their name, sorted."""
        return sorted(name for name in cls.store if part in name)

    @classmethod
    def _ask(cls, request: str, name: str) -> None:
        if cls.on_request is not None:
            cls.on_request(request, name)

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        """Send a file."""
        self._ask("put", rpath)
        if self.gate is not None:
            assert self.gate.wait(30.0), "nobody opened the gate"
        content = Path(lpath).read_bytes()
        is_torn = self.torn is not None and self.torn[0] in rpath
        super().pipe_file(rpath, content[: len(content) // 2] if is_torn else content)
        if is_torn and self.torn is not None and not self.torn[1]:
            raise HttpError("connection reset while sending")

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        """Send bytes."""
        self._ask("write", path)
        super().pipe_file(path, value)

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        """Fetch a file."""
        self._ask("get", rpath)
        super().get_file(rpath, lpath, **options)

    def cat_file(self, path: str, **options: Any) -> bytes:
        """Fetch bytes."""
        self._ask("get", path)
        content: bytes = super().cat_file(path, **options)
        return content

    def find(self, path: str, **options: Any) -> Any:
        """List."""
        self._ask("list", path)
        return super().find(path, **options)


fsspec.register_implementation("far", FarFileSystem, clobber=True)

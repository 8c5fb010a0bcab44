"""The embedded registry, called without a server."""

from collections.abc import Iterator
from typing import Any

import pytest

from cdc.registry.api import RegistryApi
from cdc.registry.store import SchemaStore


class Client:
    """Calls the API with a query in the path."""

    def __init__(self, store: SchemaStore) -> None:
        self.api = RegistryApi(store)

    def __call__(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        path, _, query = path.partition("?")
        found, answer = self.api.handle(method, path, dict(part.split("=") for part in query.split("&") if part), body)
        assert found == status, answer
        return answer

    def code(self, method: str, path: str, body: Any = None) -> int:
        path, _, query = path.partition("?")
        status, answer = self.api.handle(method, path, dict(part.split("=") for part in query.split("&") if part), body)
        assert status == (answer["error_code"] if answer["error_code"] < 1000 else answer["error_code"] // 100)
        return int(answer["error_code"])

    def register(self, subject: str, schema: str, **more: Any) -> int:
        return int(self("POST", f"/subjects/{subject}/versions", {"schema": schema, **more})["id"])


@pytest.fixture
def call() -> Iterator[Client]:
    store = SchemaStore(":memory:")
    yield Client(store)
    store.close()

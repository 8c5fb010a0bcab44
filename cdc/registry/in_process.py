"""`Registry("memory://")`: the embedded registry without a network, one for each address in a process."""

import json

import httpx

from cdc.registry.api import RegistryApi
from cdc.registry.store import SchemaStore

_apis: dict[str, RegistryApi] = {}


def transport_to(url: str) -> httpx.AsyncBaseTransport:
    """Return what carries requests to the registry of an address, made at the first call; what it keeps ends with the process."""
    api = _apis.setdefault(url.rstrip("/"), RegistryApi(SchemaStore(":memory:")))

    def answer(request: httpx.Request) -> httpx.Response:
        content = request.read()
        path = request.url.raw_path.decode().partition("?")[0]
        status, found = api.handle(request.method, path, dict(request.url.params), json.loads(content) if content else None)
        return httpx.Response(status, text=found) if isinstance(found, str) else httpx.Response(status, json=found)

    return httpx.MockTransport(answer)

"""The worker's pages about state: rows of tables, and the state of a key in any operator, as JSON. Nothing there changes anything.

    GET /tables                                           what tables there are, and which partitions are here
    GET /tables/users?key=ann                             {"table": "users", "key": "ann", "value": {…}, "partition": 3, …}
    GET /tables/users?from=a&to=b&limit=100               {"rows": [{"key": …, "value": …}, …], "missing": [1], "next": null, …}
    GET /state/visits/visit?key=ann                       {"state": {"views": 2, "trail": […]}, "partition": 3, …}

What comes is committed. A key is written as on the wire: text, a decimal number, a Struct's JSON; `key_hex=` takes any bytes.
`pipeline=` says whose table, where several pipelines keep one of a name; `partition=` where to look for state that another
partitioner than Kafka's own has placed.

    200 found   400 not a question   403 not for you   404 no such table, operator or row   421 the partition is on another worker
    503 the partition is here, but its task is not open at present

An answer 421 says whom to ask: "worker": {"url": "http://10.0.0.7:6066", "host": "node-7"}, or null while that is not known (a
worker whose web server is off). A range says the same for the partitions that it misses. A worker that listens on its own machine
only says the address there, so ask it from that host, or give it `web_bind=` and `web_host=` (or `canonical_url=`).

Only this machine may ask, or whoever shows the app's `web_token` (`Authorization: Bearer …`). With a token set, this machine needs
it too. Without one, a request that came through a proxy, or for another name than this machine's (a rebound DNS name), is refused.
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from faust.web import Request, Response, View

from engine.errors import ConfigError, UnavailableError
from engine.runtime.assignor import WorkerAddress
from engine.runtime.state_reader import NotHereError, Place, StateReader, UnknownStateError

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")
_Answer = tuple[int, dict[str, Any]]


def state_pages(reader: StateReader, token: str | None) -> dict[str, type[View]]:
    """Return the views by path.

    Args:
        token: What a request must carry; None: requests of this machine are enough.
    """

    async def tables(view: View, request: Request, **_: Any) -> Response:
        async def answer() -> _Answer:
            return 200, {"tables": [_names(place) for place in reader.tables()]}

        return await _respond(view, request, token, answer)

    async def table(view: View, request: Request, name: str = "", **_: Any) -> Response:
        return await _respond(view, request, token, lambda: _table(reader, name, request.query))

    async def state(view: View, request: Request, pipeline: str = "", operator: str = "", **_: Any) -> Response:
        return await _respond(view, request, token, lambda: _state(reader, pipeline, operator, request.query))

    pages = {"/tables": tables, "/tables/{name}": table, "/state/{pipeline}/{operator}": state}
    return {path: type("StatePage", (View,), {"get": handler, "__doc__": "State of this worker."}) for path, handler in pages.items()}


def is_allowed(remote: str | None, host: str, headers: Mapping[str, str], token: str | None) -> bool:
    """Return whether a request may see state.

    Args:
        remote: Address of whoever asks.
        host: Name under which it was asked for, with or without a port.
    """
    if token is not None:
        scheme, _, shown = headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), token.encode())
    if any(name in headers for name in _FORWARDED):
        return False
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return is_loopback(remote or "") and (name == "localhost" or is_loopback(name.strip("[]")))


def is_loopback(address: str) -> bool:
    """Return whether only this machine has an address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


async def _respond(view: View, request: Request, token: str | None, answer: Callable[[], Awaitable[_Answer]]) -> Response:
    """Return the answer as JSON; what goes wrong as {"error": …} with the status that says who can help."""
    if not is_allowed(getattr(request, "remote", None), getattr(request, "host", ""), request.headers, token):
        how = "show the app's token: Authorization: Bearer …" if token else "ask from this machine, or set web_token= of the app"
        return _json(view, 403, {"error": f"state is not for everyone: {how}"})
    try:
        return _json(view, *await answer())
    except UnknownStateError as error:
        return _json(view, 404, {"error": str(error)})
    except NotHereError as error:
        return _json(view, 421, {"error": str(error), "partition": error.partition, "worker": _where(error.worker)})
    except ConfigError as error:
        return _json(view, 400, {"error": str(error)})
    except UnavailableError as error:
        return _json(view, 503, {"error": str(error)})


async def _table(reader: StateReader, name: str, query: Mapping[str, str]) -> _Answer:
    place = reader.table(name, query.get("pipeline"))
    raw = _raw_key(query)
    if raw is not None:
        found = reader.row(place, reader.key(place, raw))
        told = {**_names(place), "key": found.key, "partition": found.partition}
        if found.value is None:
            return 404, {"error": f"table {name!r} has no row for this key", **told}
        return 200, {**told, "value": found.value}
    low, high = (reader.key(place, query[bound].encode()) if bound in query else None for bound in ("from", "to"))
    rows = await reader.rows(place, low, high, _number(query, "limit", 100))
    told_rows = [{"key": key, "value": value} for key, value in rows.items]
    elsewhere = {str(number): _where(worker) for number, worker in rows.workers.items()}
    told = {"rows": told_rows, "partitions": rows.partitions, "missing": rows.missing, "workers": elsewhere, "next": rows.following}
    return 200, {**_names(place), **told}


async def _state(reader: StateReader, pipeline: str, operator: str, query: Mapping[str, str]) -> _Answer:
    place = reader.operator(pipeline, operator)
    raw = _raw_key(query)
    if raw is None:
        raise ConfigError("say which key: ?key=…")
    partition = _number(query, "partition", -1) if "partition" in query else None
    found = await reader.state(place, reader.key(place, raw), partition)
    return 200, {"pipeline": pipeline, "operator": operator, "key": found.key, "partition": found.partition, "state": found.value}


def _names(place: Place) -> dict[str, Any]:
    return {"table": place.node.name, "pipeline": place.pipeline}


def _where(worker: WorkerAddress | None) -> dict[str, str] | None:
    return None if worker is None else {"url": worker.url, "host": worker.host}


def _raw_key(query: Mapping[str, str]) -> bytes | None:
    """Return the bytes of the key that is asked for, None if none is."""
    if "key_hex" in query:
        try:
            return bytes.fromhex(query["key_hex"])
        except ValueError:
            raise ConfigError(f"key_hex={query['key_hex']!r} is not hexadecimal") from None
    return query["key"].encode() if "key" in query else None


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"{name}={text!r} is not a whole number")
    return int(text)


def _json(view: View, status: int, body: dict[str, Any]) -> Response:
    raw = msgspec.json.encode(_plain(msgspec.to_builtins(body, enc_hook=repr, str_keys=False)))
    return view.bytes(raw, status=status, headers={"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"})


def _plain(value: Any) -> Any:
    """Return what JSON can say: keys that are not text as the text of them."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value

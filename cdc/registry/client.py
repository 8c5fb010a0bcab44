"""A client of a schema registry: the Confluent API over HTTP.

    registry = Registry("https://registry:8081", auth=("user", "secret"), cafile="ca.pem")
    await registry.fetch_ids([73])          # in the shell
    registry.schema(73)                     # in the core: only what has been fetched

Schemas never change under an id, so they are kept for good; the versions of a subject are kept for `subject_ttl_s`. A call is tried
`attempts` times, at every address in turn, with a back-off that doubles; then it is an UnavailableError, and the caller waits.

| answer                      | error                                              |
|-----------------------------|----------------------------------------------------|
| 404 (40401, 40402, 40403)   | `NotFoundError`: of an id, that record is refused  |
| 409                         | `IncompatibleError`, with the registry's words     |
| 401, 403, 422, other 4xx    | `ConfigError`                                      |
| 408, 429, 5xx, no answer,   | `UnavailableError`, after all attempts             |
| 404 in other words          |                                                    |

Source: Confluent documentation, "Schema Registry API Reference".
"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
from msgspec import Struct

from engine.errors import ConfigError, RecordError, UnavailableError

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT = "application/vnd.schemaregistry.v1+json"


class NotFoundError(RecordError):
    """The registry has no such subject, version or schema."""


class IncompatibleError(ConfigError):
    """The registry refuses a schema because it is incompatible with an earlier version."""


class Reference(Struct, frozen=True):
    """A schema that another one builds on, by the name that it uses for it."""

    name: str
    subject: str
    version: int


class RegisteredSchema(Struct, frozen=True):
    """A schema as the registry holds it. `resolved`: texts of the schemas it refers to, those first that others build on."""

    text: str
    kind: str = "AVRO"
    references: tuple[Reference, ...] = ()
    resolved: tuple[str, ...] = ()


class SubjectVersion(Struct, frozen=True):
    """A version of a subject."""

    subject: str
    version: int
    id: int
    schema: RegisteredSchema


class Registry:
    """Client of a registry; one for an app.

    Args:
        url: Address, or several of the same registry; memory:// for a registry inside this process, for tests and first tries
            (memory://NAME for another one).
        auth: (user, password), or a bearer token.
        cafile: Authorities to trust instead of the system's; certfile, keyfile: a certificate of our own.
        timeout_s: Longest wait for an answer.
        attempts: How often a call is tried.
        retry_first_s: Back-off after the first failure; it doubles, up to `retry_max_s`.
        transport: In the place of the network (tests, an embedded registry).
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        auth: tuple[str, str] | str | None = None,
        cafile: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
        attempts: int = 4,
        retry_first_s: float = 0.1,
        retry_max_s: float = 2.0,
        subject_ttl_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.urls = [address.rstrip("/") for address in ([url] if isinstance(url, str) else url)]
        if isinstance(url, str) and url.startswith("memory://"):
            self.urls, transport = [url.replace("memory://", "http://memory-").rstrip("-/")], transport or _in_process(url)
        if not self.urls or not all(address.startswith(("http://", "https://")) for address in self.urls):
            raise ConfigError(f"registry {url!r}: give an address such as http://host:8081")
        self._auth = auth if isinstance(auth, tuple) else None
        self._headers = {
            "Accept": f"{_CONTENT}, application/json",
            **({"Authorization": f"Bearer {auth}"} if isinstance(auth, str) else {}),
        }
        self._headers.update(headers or {})
        self._verify = _tls(cafile, certfile, keyfile)
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._back_off_s = (retry_first_s, retry_max_s)
        self._ttl_s = subject_ttl_s
        self._transport = transport
        self._client: tuple[Any, httpx.AsyncClient] | None = None
        self._by_id: dict[int, RegisteredSchema] = {}
        self._unknown: set[int] = set()
        self._by_subject: dict[tuple[str, str], tuple[float, SubjectVersion]] = {}

    # -- schemas by id

    def schema(self, schema_id: int) -> RegisteredSchema:
        """Return a schema that has been fetched.

        Raises:
            NotFoundError: The registry said that there is none.
            UnavailableError: It has not been asked.
        """
        found = self._by_id.get(schema_id)
        if found is not None:
            return found
        if schema_id in self._unknown:
            raise NotFoundError(f"{self.urls[0]} has no schema of id {schema_id}")
        raise UnavailableError(f"schema {schema_id} has not been fetched from {self.urls[0]}")

    async def fetch_ids(self, ids: Sequence[int]) -> None:
        """Fetch schemas that are not known yet; one that does not exist is noted, and asked for again the next time.

        Raises UnavailableError if the registry does not answer.
        """
        for schema_id in ids:
            if schema_id not in self._by_id:
                await self._fetch(schema_id)

    async def get(self, schema_id: int) -> RegisteredSchema:
        """Return the schema of an id, fetched if need be."""
        await self.fetch_ids([schema_id])
        return self.schema(schema_id)

    async def _fetch(self, schema_id: int) -> None:
        try:
            answer = await self._call("GET", f"/schemas/ids/{schema_id}")
            self._by_id[schema_id] = await self._resolved(answer)
            self._unknown.discard(schema_id)
        except NotFoundError:
            self._unknown.add(schema_id)

    async def _resolved(self, answer: Mapping[str, Any]) -> RegisteredSchema:
        references = tuple(Reference(r["name"], r["subject"], r["version"]) for r in answer.get("references") or ())
        texts: dict[str, None] = {}
        for reference in references:
            inner = (await self._version(reference.subject, reference.version, "?deleted=true")).schema
            texts.update(dict.fromkeys((*inner.resolved, inner.text)))
        return RegisteredSchema(answer["schema"], answer.get("schemaType") or "AVRO", references, tuple(texts))

    # -- subjects

    async def subjects(self, prefix: str = "") -> list[str]:
        """Return the subjects, sorted."""
        return sorted(name for name in await self._call("GET", "/subjects") if name.startswith(prefix))

    async def versions(self, subject: str) -> list[int]:
        """Return the versions of a subject, ascending."""
        return sorted(await self._call("GET", f"/subjects/{_path(subject)}/versions"))

    async def version(self, subject: str, version: int | str = "latest") -> SubjectVersion:
        """Return a version of a subject; the latest may be as old as `subject_ttl_s`."""
        return await self._version(subject, version)

    async def _version(self, subject: str, version: int | str, query: str = "") -> SubjectVersion:
        place = (subject, f"{version}{query}")
        known = self._by_subject.get(place)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        answer = await self._call("GET", f"/subjects/{_path(subject)}/versions/{version}{query}")
        found = SubjectVersion(subject, answer["version"], answer["id"], await self._resolved(answer))
        self._by_subject[place] = time.monotonic() + self._ttl_s, found
        self._by_id.setdefault(found.id, found.schema)
        return found

    async def register(
        self, subject: str, schema: str, *, kind: str = "AVRO", references: Sequence[Reference] = (), normalize: bool = False
    ) -> int:
        """Register a schema under a subject and return its id; the same schema again gives the same id.

        Raises:
            IncompatibleError: With an earlier version of the subject.
        """
        answer = await self._call("POST", f"/subjects/{_path(subject)}/versions{_query(normalize)}", _body(schema, kind, references))
        self._by_subject = {place: entry for place, entry in self._by_subject.items() if place[0] != subject}
        return int(answer["id"])

    async def look_up(
        self, subject: str, schema: str, *, kind: str = "AVRO", references: Sequence[Reference] = (), normalize: bool = False
    ) -> int:
        """Return the id of a schema that is registered under a subject; NotFoundError if it is not."""
        return (await self.find(subject, schema, kind=kind, references=references, normalize=normalize)).id

    async def find(
        self, subject: str, schema: str, *, kind: str = "AVRO", references: Sequence[Reference] = (), normalize: bool = False
    ) -> SubjectVersion:
        """Return the version under which a subject has a schema; NotFoundError if it does not."""
        answer = await self._call("POST", f"/subjects/{_path(subject)}{_query(normalize)}", _body(schema, kind, references))
        return SubjectVersion(subject, answer["version"], answer["id"], RegisteredSchema(schema, kind, tuple(references)))

    async def check(
        self, subject: str, schema: str, *, version: int | str = "latest", kind: str = "AVRO", references: Sequence[Reference] = ()
    ) -> tuple[bool, list[str]]:
        """Return whether a schema is compatible with a version by the subject's level, and the reasons if it is not."""
        path = f"/compatibility/subjects/{_path(subject)}/versions/{version}?verbose=true"
        answer = await self._call("POST", path, _body(schema, kind, references))
        return bool(answer["is_compatible"]), list(answer.get("messages") or ())

    async def level(self, subject: str | None = None) -> str:
        """Return the compatibility level of a subject (the global one where it has none), or the global one."""
        try:
            answer = await self._call("GET", "/config" if subject is None else f"/config/{_path(subject)}?defaultToGlobal=true")
        except NotFoundError:  # registries before 5.4 know no defaultToGlobal
            answer = await self._call("GET", "/config")
        return str(answer.get("compatibilityLevel") or answer.get("compatibility"))

    async def set_level(self, level: str, subject: str | None = None) -> None:
        """Set the compatibility level of a subject, or the global one."""
        await self._call("PUT", "/config" if subject is None else f"/config/{_path(subject)}", {"compatibility": level})

    async def delete(self, subject: str, version: int | None = None, *, permanent: bool = False) -> None:
        """Delete a version of a subject, or all of it; permanently only after it has been deleted."""
        path = f"/subjects/{_path(subject)}" + ("" if version is None else f"/versions/{version}")
        await self._call("DELETE", path + ("?permanent=true" if permanent else ""))
        self._by_subject = {place: entry for place, entry in self._by_subject.items() if place[0] != subject}

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            _, client = self._client
            self._client = None
            await client.aclose()

    # -- calls

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        delay_s, longest_s = self._back_off_s
        reason = ""
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(min(delay_s * 2 ** (attempt - 1), longest_s))
            url = self.urls[attempt % len(self.urls)] + path
            try:
                content = None if body is None else json.dumps(body).encode()
                answer = await self._open().request(method, url, content=content, headers={"Content-Type": _CONTENT} if body else None)
            except (httpx.TransportError, OSError) as error:
                reason = f"{url}: {type(error).__name__}: {error}"
                continue
            if answer.status_code not in _RETRIED and not _is_stranger(answer):
                return _read(answer, url)
            reason = f"{url}: status {answer.status_code}: {_words(answer)}"
            if _is_stranger(answer):
                reason += " (a registry would say what it has not found; is this its address?)"
        raise UnavailableError(f"the schema registry does not answer after {self._attempts} attempts; last {reason}")

    def _open(self) -> httpx.AsyncClient:
        """Return the client of the running loop: connections belong to one."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            made = httpx.AsyncClient(
                auth=self._auth, headers=self._headers, verify=self._verify, timeout=self._timeout_s, transport=self._transport
            )
            self._client = loop, made
        return self._client[1]


def _in_process(url: str) -> httpx.AsyncBaseTransport:
    from cdc.registry.in_process import transport_to  # it stands on the embedded registry, which a client does not need otherwise

    return transport_to(url)


SubjectStrategy = Callable[[str, str], str]
"""From topic and record name to the subject of its values."""

STRATEGIES: dict[str, SubjectStrategy] = {
    "topic": lambda topic, record: f"{topic}-value",
    "record": lambda topic, record: record,
    "topic-record": lambda topic, record: f"{topic}-{record}",
}


def _is_stranger(answer: httpx.Response) -> bool:
    """Return whether somebody else than a registry says 404: a gateway, or a server at an address that is wrong."""
    if answer.status_code != 404:
        return False
    try:
        return not 40400 <= answer.json()["error_code"] < 40500
    except (ValueError, KeyError, TypeError):
        return True


def _read(answer: httpx.Response, url: str) -> Any:
    status = answer.status_code
    if status == 404:
        raise NotFoundError(f"{url}: {_words(answer)}")
    if status == 409:
        raise IncompatibleError(f"{url}: {_words(answer)}")
    if status >= 400:
        raise ConfigError(f"{url}: the registry answers {status}: {_words(answer)}")
    try:
        return answer.json()
    except ValueError as error:
        raise ConfigError(f"{url}: the answer is not JSON; is this the address of a schema registry?") from error


def _words(answer: httpx.Response) -> str:
    try:
        said = answer.json()
        return f"{said['error_code']} {said['message']}"
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


def _body(schema: str, kind: str, references: Sequence[Reference]) -> dict[str, Any]:
    body: dict[str, Any] = {"schema": schema}
    if kind != "AVRO":
        body["schemaType"] = kind
    if references:
        body["references"] = [{"name": r.name, "subject": r.subject, "version": r.version} for r in references]
    return body


def _query(normalize: bool) -> str:
    return "?normalize=true" if normalize else ""


def _path(name: str) -> str:
    return quote(name, safe="")


def _tls(cafile: str | None, certfile: str | None, keyfile: str | None) -> ssl.SSLContext | bool:
    if cafile is None and certfile is None:
        return True
    try:
        context = ssl.create_default_context(cafile=cafile)
        if certfile is not None:
            context.load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"registry: the certificates cannot be read: {error}") from error
    return context

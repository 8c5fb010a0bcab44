"""The Confluent API of the embedded registry: from a request to an answer, without any network.

    answer = RegistryApi(store).handle("POST", "/subjects/orders-value/versions", {}, {"schema": "..."})     (200, {"id": 1})

A subject keeps to one kind of schema unless its level is NONE. There are no contexts but the default one, and no metadata, rule sets,
aliases and tags: what asks for them is refused, never passed over. Levels and modes: `cdc.registry.settings`; deletes:
`cdc.registry.deleting`.

Source: Confluent documentation, "Schema Registry API Reference", for paths, answers and error codes; where it is silent, what
Confluent's own server answers.
"""

import re
from collections.abc import Callable, Mapping
from importlib.metadata import version as version_of
from typing import Any
from urllib.parse import unquote

from cdc.avro_values import check_schema
from cdc.registry.answers import (
    ApiError,
    Query,
    Raw,
    References,
    check_json,
    checked_body,
    is_true,
    kind_and_references,
    number_of,
    page,
    plain_subject,
    refuse,
    shown,
    version_number,
    writable_subject,
)
from cdc.registry.deleting import Deletes, referring
from cdc.registry.rules import check, names_of
from cdc.registry.settings import Settings
from cdc.registry.store import SchemaStore, Version
from engine.errors import RecordError

Answer = tuple[int, Any]
KINDS = ("AVRO", "JSON", "PROTOBUF")
_TAGS = dict.fromkeys(("schemaTagsToAdd", "schemaTagsToRemove", "propagateSchemaTags"), "tags of schemas")
_REFUSED = {"metadata": "metadata of schemas", **_TAGS}
_CLUSTER = {"kafka-cluster": "", "schema-registry-cluster": "schema-registry"}


class RegistryApi:
    """Answers requests from a store."""

    def __init__(self, store: SchemaStore) -> None:
        self._store = store
        self._settings = Settings(store)
        self._deletes = Deletes(store, self._settings)
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = [
            (method, re.compile(pattern.replace("{s}", "(?P<subject>[^/]+)").replace("{v}", "(?P<version>[^/]+)")), function)
            for method, pattern, function in (*self._schema_routes(), *self._other_routes())
        ]

    def _schema_routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        by_id = "/schemas/ids/(?P<number>[^/]+)"
        return [
            ("GET", "/subjects", self._subjects),
            ("POST", "/subjects/{s}", self._look_up),
            ("DELETE", "/subjects/{s}", self._deletes.subject),
            ("GET", "/subjects/{s}/metadata", self._with_metadata),
            ("GET", "/subjects/{s}/versions", self._versions),
            ("POST", "/subjects/{s}/versions", self._register),
            (
                "GET",
                "/subjects/{s}/versions/{v}",
                lambda query, subject, version: _formed(query, shown(self._version(subject, version, query))),
            ),
            (
                "GET",
                "/subjects/{s}/versions/{v}/schema",
                lambda query, subject, version: _raw(query, shown(self._version(subject, version, query))),
            ),
            ("GET", "/subjects/{s}/versions/{v}/referencedby", self._referenced_by),
            ("DELETE", "/subjects/{s}/versions/{v}", self._deletes.version),
            ("GET", "/schemas", self._schemas),
            ("GET", "/schemas/types", lambda query: list(KINDS)),
            ("GET", by_id, self._by_id),
            ("GET", f"{by_id}/schema", lambda query, number: _raw(query, self._by_id(query, number))),
            ("GET", f"{by_id}/subjects", lambda query, number: page(query, sorted({v.subject for v in self._uses(number, query)}))),
            ("GET", f"{by_id}/versions", self._versions_of_id),
            ("POST", "/compatibility/subjects/{s}/versions", self._compatible_with_all),
            ("POST", "/compatibility/subjects/{s}/versions/{v}", self._compatible_with),
        ]

    def _other_routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        found: list[tuple[str, str, Callable[..., Any]]] = [
            ("GET", "/", lambda query: {}),
            ("GET", "/contexts", lambda query: page(query, ["."])),
            ("GET", "/v1/metadata/id", lambda query: {"id": "", "scope": {"path": [], "clusters": _CLUSTER}}),
            ("GET", "/v1/metadata/version", lambda query: {"version": version_of("streamforge"), "commitId": ""}),
        ]
        settings = self._settings
        for place in ("", "/{s}"):
            found += [
                ("GET", f"/config{place}", settings.get_config),
                ("PUT", f"/config{place}", settings.set_config),
                ("DELETE", f"/config{place}", settings.delete_config),
                ("GET", f"/mode{place}", settings.get_mode),
                ("PUT", f"/mode{place}", settings.set_mode),
                ("DELETE", f"/mode{place}", settings.delete_mode),
            ]
        return found

    def handle(self, method: str, path: str, query: Query, body: Any) -> Answer:
        """Return (status, answer) of a request; a `str` answer is sent as it is, anything else as JSON."""
        try:
            known = False
            for wanted, pattern, function in self._routes:
                match = pattern.fullmatch(path.rstrip("/") or "/")
                known = known or match is not None
                if match is not None and wanted == method:
                    arguments: dict[str, Any] = {name: unquote(value) for name, value in match.groupdict().items()}
                    if "subject" in arguments:
                        arguments["subject"] = plain_subject(arguments["subject"])
                    if method in ("POST", "PUT"):
                        arguments["body"] = checked_body(body)
                    answer = function(query, **arguments)
                    return 200, answer.text if isinstance(answer, Raw) else answer
            code = 405 if known else 404
            raise ApiError(code, f"HTTP {code} {'Method Not Allowed' if known else 'Not Found'}")
        except ApiError as error:
            return error.status, {"error_code": error.code, "message": str(error)}
        except RecursionError:
            return 422, {"error_code": 42201, "message": "Invalid schema: it is nested too deeply"}

    # -- reading

    def _subjects(self, query: Query) -> list[str]:
        prefix = _prefix(query)
        only = is_true(query, "deletedOnly")
        everything = {v.subject for v in self._store.versions(deleted=only or is_true(query, "deleted"))}
        if only:
            everything -= {v.subject for v in self._store.versions()}
        return page(query, sorted(subject for subject in everything if subject.startswith(prefix)))

    def _versions(self, query: Query, subject: str) -> list[int]:
        only = is_true(query, "deletedOnly")
        found = self._known(subject, deleted=only or is_true(query, "deleted"))
        return page(query, [v.version for v in found if v.is_deleted or not only])

    def _known(self, subject: str, *, deleted: bool = False) -> list[Version]:
        found = self._store.versions(subject, deleted=deleted)
        if not found:
            raise ApiError(40401, f"Subject '{subject}' not found.")
        return found

    def _version(self, subject: str, version: str, query: Query) -> Version:
        wanted = version_number(version)
        found = self._known(subject, deleted=is_true(query, "deleted"))
        match = found[-1] if wanted is None else next((v for v in found if v.version == wanted), None)
        if match is None:
            raise ApiError(40402, f"Version {version} not found.")
        return match

    def _referenced_by(self, query: Query, subject: str, version: str) -> list[int]:
        found = self._version(subject, version, {"deleted": "true"})
        return page(query, sorted({v.id for v in referring(self._store, found, deleted=is_true(query, "deleted"))}))

    def _schemas(self, query: Query) -> list[dict[str, Any]]:
        found = self._store.versions(deleted=is_true(query, "deleted"))
        found = [v for v in found if v.subject.startswith(_prefix(query))]
        latest = {v.subject: v for v in found}
        return page(query, [shown(v) for v in (latest.values() if is_true(query, "latestOnly") else found)])

    def _with_metadata(self, query: Query, subject: str) -> None:
        """Answer which version has some metadata: none has."""
        self._known(subject, deleted=is_true(query, "deleted"))
        raise ApiError(40403, "Schema not found: this registry keeps no metadata of schemas")

    def _schema(self, number: str) -> tuple[str, str, References]:
        found = self._store.schema(number_of(number))
        if found is None:
            raise ApiError(40403, f"Schema {number} not found")
        return found

    def _by_id(self, query: Query, number: str) -> dict[str, Any]:
        kind, text, references = self._schema(number)
        most = {"maxId": self._store.id_max()} if is_true(query, "fetchMaxId") else {}
        return _formed(query, {"schema": text, **kind_and_references(kind, references), **most})

    def _uses(self, number: str, query: Query) -> list[Version]:
        self._schema(number)
        return self._store.versions(schema_id=int(number), deleted=is_true(query, "deleted"))

    def _versions_of_id(self, query: Query, number: str) -> list[dict[str, Any]]:
        return page(query, [{"subject": v.subject, "version": v.version} for v in self._uses(number, query)])

    # -- registering

    def _register(self, query: Query, subject: str, body: Mapping[str, Any]) -> dict[str, int]:
        writable_subject(subject)
        kind, text, references, parsed, resolved = self._take(body)
        schema_id, number = _given(body, "id"), _given(body, "version")
        self._settings.require_registrable(subject, schema_id)
        versions = self._store.versions(subject)
        known = self._store.find(kind, text, references, normalize=self._settings.normalizes(subject, query))
        if schema_id is not None:
            return {"id": self._import(subject, known, schema_id, number, (kind, text, references))}
        if known is not None and number is None and any(v.id == known for v in versions):
            return {"id": known}
        self._require_compatible(subject, kind, parsed, versions, resolved)
        following = 1 + max((v.version for v in self._store.versions(subject, deleted=True)), default=0)
        if number not in (None, following):
            raise ApiError(42201, f"Invalid schema: Version is not one more than previous version {following - 1}")
        kept = known if known is not None else self._store.add(kind, text, references)
        self._store.add_version(subject, kept, following)
        self._deletes.same_before(subject, kept)
        return {"id": kept}

    def _import(self, subject: str, known: int | None, schema_id: int, number: int | None, schema: tuple[str, str, References]) -> int:
        """Keep a schema with an id, and perhaps a version, of its own."""
        if known not in (None, schema_id):
            raise ApiError(42205, f"the schema is known as {known}")
        if known is None and self._store.schema(schema_id) is not None:
            raise ApiError(42205, f"Overwrite new schema with id {schema_id} is not permitted.")
        kept = self._store.add(*schema, schema_id)
        self._store.add_version(subject, kept, number)
        return kept

    def _require_compatible(self, subject: str, kind: str, parsed: Any, versions: list[Version], resolved: dict[str, Any]) -> None:
        level = self._settings.level(subject)
        found = self._breaks(level, kind, parsed, versions, resolved)
        if found:
            raise ApiError(
                409,
                f"Schema being registered is incompatible with an earlier schema for subject '{subject}' ({level}): " + "; ".join(found),
            )

    def _breaks(self, level: str, kind: str, parsed: Any, versions: list[Version], resolved: dict[str, Any]) -> list[str]:
        """Return what breaks when a schema comes behind versions."""
        if level == "NONE" or not versions:
            return []
        versions = versions if level.endswith("_TRANSITIVE") else versions[-1:]
        other = next((v for v in versions if v.kind != kind), None)
        if other is not None:
            return [f"version {other.version} is of type {other.kind}, and the new schema of type {kind}"]
        try:
            return check(level, parsed, self._parsed(versions), {**self._names_of(versions), **resolved}, kind=kind)
        except RecordError as error:
            raise ApiError(42201, f"Invalid schema: {error}") from error

    def _look_up(self, query: Query, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        kind, text, references, _, _ = self._take(body)
        versions = self._known(subject, deleted=is_true(query, "deleted"))
        known = self._store.find(kind, text, references, normalize=self._settings.normalizes(subject, query))
        found = next((v for v in reversed(versions) if v.id == known), None)
        if found is None:
            raise ApiError(40403, "Schema not found")
        return _formed(query, shown(found))

    def _take(self, body: Mapping[str, Any]) -> tuple[str, str, References, Any, dict[str, Any]]:
        """Return (kind, text, references, decoded schema, named types that it refers to) of a request."""
        kind, text = body.get("schemaType") or "AVRO", body.get("schema")
        if not isinstance(text, str) or not text.strip():
            raise ApiError(42201, "Empty schema")
        if kind not in KINDS:
            raise ApiError(42201, f"Invalid schema type {kind}")
        if body.get("ruleSet") is not None:
            raise refuse("rule sets", 42210)
        for name, what in _REFUSED.items():
            if body.get(name):
                raise refuse(what)
        try:
            references = [self._reference(r["name"], plain_subject(r["subject"]), int(r["version"])) for r in body.get("references") or ()]
            texts = self._texts(references)
            if kind == "PROTOBUF":
                _check_protobuf(text)
                return kind, text, tuple(references), text, {}
            if kind == "AVRO":
                text = text if text.lstrip()[0] in '{["' else f'"{text.strip()}"'
                return kind, text, tuple(references), check_schema(text, texts), names_of(texts)
            return kind, text, tuple(references), check_json(text), self._referred(kind, tuple(references))
        except (RecordError, KeyError, TypeError, ValueError) as error:
            raise ApiError(42201, f"Invalid schema: {error}") from error

    def _texts(self, references: Any) -> list[str]:
        """Return the texts of referred schemas, those first that others build on."""
        found: dict[str, None] = {}
        for name, subject, version in references:
            match = self._version_of(name, subject, version)
            found.update(dict.fromkeys((*self._texts(match.references), match.text)))
        return list(found)

    def _reference(self, name: str, subject: str, version: int) -> tuple[str, str, int]:
        """Return a reference; -1 as its version is the latest of now."""
        if version != -1:
            return name, subject, version
        return name, subject, max((v.version for v in self._store.versions(subject)), default=version)

    def _version_of(self, name: str, subject: str, version: int) -> Version:
        """Return the version that a reference names, though it may be deleted softly."""
        match = next((v for v in self._store.versions(subject, deleted=True) if v.version == version), None)
        if match is None:
            raise ApiError(42201, f"Invalid schema: reference {name!r}: there is no version {version} of {subject!r}")
        return match

    # -- compatibility

    def _compatible_with(self, query: Query, subject: str, version: str, body: Mapping[str, Any]) -> dict[str, Any]:
        writable_subject(subject)
        level = self._settings.level(subject)
        return self._compatible(query, level, [self._version(subject, version, {})], body)

    def _compatible_with_all(self, query: Query, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer what registering would find: anything fits a subject that does not exist."""
        writable_subject(subject)
        return self._compatible(query, self._settings.level(subject), self._store.versions(subject), body)

    def _compatible(self, query: Query, level: str, versions: list[Version], body: Mapping[str, Any]) -> dict[str, Any]:
        verbose = is_true(query, "verbose")
        try:
            kind, _, _, parsed, resolved = self._take(body)
            found = self._breaks(level, kind, parsed, versions, resolved)
        except ApiError as error:
            if not verbose or error.code != 42201:
                raise
            found = [str(error)]
        answer: dict[str, Any] = {"is_compatible": not found}
        return {**answer, "messages": found} if verbose else answer

    def _parsed(self, versions: list[Version]) -> list[tuple[int, Any]]:
        return [(v.version, self._decoded(v.kind, v.text, v.references)) for v in versions]

    def _decoded(self, kind: str, text: str, references: References) -> Any:
        """Return a schema as comparisons take it."""
        if kind == "PROTOBUF":
            return text
        return check_json(text) if kind == "JSON" else check_schema(text, self._texts(references))

    def _names_of(self, versions: list[Version]) -> dict[str, Any]:
        return {name: schema for v in versions for name, schema in self._referred(v.kind, v.references).items()}

    def _referred(self, kind: str, references: References) -> dict[str, Any]:
        """Return the schemas that references name: Avro's types by full name, JSON Schemas by the name of the reference."""
        if kind == "AVRO":
            return names_of(self._texts(references))
        found: dict[str, Any] = {}
        for name, subject, version in references if kind == "JSON" else ():
            match = self._version_of(name, subject, version)
            found |= {name: check_json(match.text), **self._referred(kind, match.references)}
        return found


def _prefix(query: Query) -> str:
    """Return the prefix of subjects that a request names; ":*:" stands for all contexts."""
    return plain_subject(query.get("subjectPrefix", "").removeprefix(":*:"))


def _given(body: Mapping[str, Any], name: str) -> int | None:
    """Return a number of a request; clients write -1 or 0 for none."""
    value = body.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value if value is not None and value > 0 else None
    raise ApiError(400, f"{name} is not a whole number: {value!r}")


def _raw(query: Query, answer: dict[str, Any]) -> Raw:
    return Raw(_formed(query, answer)["schema"])


def _formed(query: Query, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with its schema in the format that a request asks for; JSON Schemas have only one."""
    wanted, kind = query.get("format", "").strip(), answer.get("schemaType", "AVRO")
    if not wanted or kind == "JSON":
        return answer
    if (kind, wanted) != ("PROTOBUF", "serialized"):
        raise ApiError(422, f"this registry gives no schema of type {kind} in the format {wanted!r}")
    from cdc.protobuf_text import serialized  # it was there when the schema was registered

    return {**answer, "schema": serialized(answer["schema"])}


def _check_protobuf(text: str) -> None:
    try:
        from cdc.protobuf_text import parse  # only where it is used: the library is an extra of its own
    except ModuleNotFoundError as error:
        raise ApiError(42201, "Invalid schema: for Protobuf this registry needs `pip install streamforge[protobuf]`") from error
    if not parse(text).message_type:
        raise RecordError("it has no message")

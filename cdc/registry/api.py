"""The Confluent API of the embedded registry: from a request to an answer, without any network.

    answer = RegistryApi(store).handle("POST", "/subjects/orders-value/versions", {}, {"schema": "..."})     (200, {"id": 1})

Modes are enforced: READONLY refuses whatever changes schemas, IMPORT takes ids and versions as given and checks nothing.
A subject keeps to one kind of schema unless its level is NONE. Contexts, metadata and rule sets are refused or unknown (404).

Source: Confluent documentation, "Schema Registry API Reference", for paths, answers and error codes.
"""

import re
from collections.abc import Callable, Mapping
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
    shown,
    version_number,
)
from cdc.registry.rules import DEFAULT_LEVEL, LEVELS, check, names_of
from cdc.registry.store import SchemaStore, Version
from engine.errors import RecordError

Answer = tuple[int, Any]
KINDS = ("AVRO", "JSON", "PROTOBUF")
MODES = ("READWRITE", "READONLY", "IMPORT")


_SAID = {"level": "compatibility"}


class RegistryApi:
    """Answers requests from a store."""

    def __init__(self, store: SchemaStore) -> None:
        self._store = store
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = [
            (method, re.compile(pattern.replace("{s}", "(?P<subject>[^/]+)").replace("{v}", "(?P<version>[^/]+)")), function)
            for method, pattern, function in self._table()
        ]

    def _table(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            ("GET", "/", lambda query: {}),
            ("GET", "/subjects", self._subjects),
            ("POST", "/subjects/{s}", self._look_up),
            ("DELETE", "/subjects/{s}", self._delete_subject),
            ("GET", "/subjects/{s}/versions", self._versions),
            ("POST", "/subjects/{s}/versions", self._register),
            ("GET", "/subjects/{s}/versions/{v}", lambda query, subject, version: shown(self._version(subject, version, query))),
            ("GET", "/subjects/{s}/versions/{v}/schema", lambda query, subject, version: Raw(self._version(subject, version, query).text)),
            ("GET", "/subjects/{s}/versions/{v}/referencedby", self._referenced_by),
            ("DELETE", "/subjects/{s}/versions/{v}", self._delete_version),
            ("GET", "/schemas", self._schemas),
            ("GET", "/schemas/types", lambda query: list(KINDS)),
            ("GET", "/schemas/ids/(?P<number>[^/]+)", self._by_id),
            ("GET", "/schemas/ids/(?P<number>[^/]+)/schema", lambda query, number: Raw(self._schema(number)[1])),
            (
                "GET",
                "/schemas/ids/(?P<number>[^/]+)/subjects",
                lambda query, number: sorted({v.subject for v in self._uses(number, query)}),
            ),
            ("GET", "/schemas/ids/(?P<number>[^/]+)/versions", self._versions_of_id),
            ("GET", "/config", lambda query: {"compatibilityLevel": self._level("")}),
            ("GET", "/config/{s}", self._get_level),
            ("PUT", "/config", lambda query, body: self._set_level("", body)),
            ("PUT", "/config/{s}", lambda query, body, subject: self._set_level(subject, body)),
            ("DELETE", "/config", lambda query: self._unset("level", "", 40408, "compatibilityLevel", DEFAULT_LEVEL)),
            ("DELETE", "/config/{s}", lambda query, subject: self._unset("level", subject, 40408, "compatibilityLevel", DEFAULT_LEVEL)),
            ("GET", "/mode", lambda query: {"mode": self._mode("")}),
            ("GET", "/mode/{s}", self._get_mode),
            ("PUT", "/mode", lambda query, body: self._set_mode("", body, query)),
            ("PUT", "/mode/{s}", lambda query, body, subject: self._set_mode(subject, body, query)),
            ("DELETE", "/mode", lambda query: self._unset("mode", "", 40409, "mode", MODES[0])),
            ("DELETE", "/mode/{s}", lambda query, subject: self._unset("mode", subject, 40409, "mode", MODES[0])),
            ("POST", "/compatibility/subjects/{s}/versions", self._compatible_with_all),
            ("POST", "/compatibility/subjects/{s}/versions/{v}", self._compatible_with),
        ]

    def handle(self, method: str, path: str, query: Query, body: Any) -> Answer:
        """Return (status, answer) of a request; a `str` answer is sent as it is, anything else as JSON."""
        try:
            known = False
            for wanted, pattern, function in self._routes:
                match = pattern.fullmatch(path.rstrip("/") or "/")
                known = known or match is not None
                if match is not None and wanted == method:
                    arguments: dict[str, Any] = {name: unquote(value) for name, value in match.groupdict().items()}
                    if method in ("POST", "PUT"):
                        arguments["body"] = checked_body(body)
                    answer = function(query, **arguments)
                    return 200, answer.text if isinstance(answer, Raw) else answer
            code = 405 if known else 404
            raise ApiError(code, f"HTTP {code} {'Method Not Allowed' if known else 'Not Found'}")
        except ApiError as error:
            return error.status, {"error_code": error.code, "message": str(error)}

    # -- reading

    def _subjects(self, query: Query) -> list[str]:
        prefix = query.get("subjectPrefix", "")
        only = is_true(query, "deletedOnly")
        everything = {v.subject for v in self._store.versions(deleted=only or is_true(query, "deleted"))}
        if only:
            everything -= {v.subject for v in self._store.versions()}
        return sorted(subject for subject in everything if subject.startswith(prefix))

    def _versions(self, query: Query, subject: str) -> list[int]:
        return [v.version for v in self._known(subject, deleted=is_true(query, "deleted"))]

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
        found = self._version(subject, version, query)
        return sorted({v.id for v in self._store.versions() if any(r[1:] == (subject, found.version) for r in v.references)})

    def _schemas(self, query: Query) -> list[dict[str, Any]]:
        found = self._store.versions(deleted=is_true(query, "deleted"))
        found = [v for v in found if v.subject.startswith(query.get("subjectPrefix", ""))]
        latest = {v.subject: v for v in found}
        return [shown(v) for v in (latest.values() if is_true(query, "latestOnly") else found)]

    def _schema(self, number: str) -> tuple[str, str, References]:
        found = self._store.schema(int(number)) if number.isdigit() else None
        if found is None:
            raise ApiError(40403, f"Schema {number} not found")
        return found

    def _by_id(self, query: Query, number: str) -> dict[str, Any]:
        kind, text, references = self._schema(number)
        return {"schema": text, **kind_and_references(kind, references)}

    def _uses(self, number: str, query: Query) -> list[Version]:
        self._schema(number)
        return self._store.versions(schema_id=int(number), deleted=is_true(query, "deleted"))

    def _versions_of_id(self, query: Query, number: str) -> list[dict[str, Any]]:
        return [{"subject": v.subject, "version": v.version} for v in self._uses(number, query)]

    # -- registering

    def _register(self, query: Query, subject: str, body: Mapping[str, Any]) -> dict[str, int]:
        kind, text, references, parsed, resolved = self._take(body)
        mode = self._mode(subject)
        if mode == "READONLY":
            raise ApiError(42205, f"Subject {subject} is in read-only mode")
        schema_id, number = body.get("id"), body.get("version")
        if (schema_id is not None or number is not None) and mode != "IMPORT":
            raise ApiError(42205, f"Subject {subject} is not in import mode: ids and versions are given by the registry")
        versions = self._store.versions(subject)
        known = self._store.find(kind, text, references, normalize=is_true(query, "normalize"))
        if known is not None and mode != "IMPORT" and any(v.id == known for v in versions):
            return {"id": known}
        if mode != "IMPORT":
            self._require_compatible(subject, kind, parsed, versions, resolved)
        if schema_id is not None and known not in (None, schema_id):
            raise ApiError(42205, f"the schema is known as {known}")
        if known is None and schema_id is not None and self._store.schema(schema_id) is not None:
            raise ApiError(42205, f"id {schema_id} is another schema's")
        kept = known if known is not None else self._store.add(kind, text, references, schema_id)
        self._store.add_version(subject, kept, number)
        return {"id": kept}

    def _require_compatible(self, subject: str, kind: str, parsed: Any, versions: list[Version], resolved: dict[str, Any]) -> None:
        level = self._level(subject)
        if not versions or level == "NONE":
            return
        found = self._breaks(level, kind, parsed, versions, resolved)
        if found:
            raise ApiError(
                409,
                f"Schema being registered is incompatible with an earlier schema for subject '{subject}' ({level}): " + "; ".join(found),
            )

    def _breaks(self, level: str, kind: str, parsed: Any, versions: list[Version], resolved: dict[str, Any]) -> list[str]:
        """Return what breaks when a schema comes behind versions."""
        other = next((v for v in versions if v.kind != kind), None)
        if other is not None and level != "NONE":
            return [f"version {other.version} is of type {other.kind}, and the new schema of type {kind}"]
        try:
            return check(level, parsed, self._parsed(versions), {**self._names_of(versions), **resolved}, kind=kind)
        except RecordError as error:
            raise ApiError(42201, f"Invalid schema: {error}") from error

    def _look_up(self, query: Query, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        kind, text, references, _, _ = self._take(body)
        versions = self._known(subject, deleted=is_true(query, "deleted"))
        known = self._store.find(kind, text, references, normalize=is_true(query, "normalize"))
        found = next((v for v in reversed(versions) if v.id == known), None)
        if found is None:
            raise ApiError(40403, "Schema not found")
        return shown(found)

    def _take(self, body: Mapping[str, Any]) -> tuple[str, str, References, Any, dict[str, Any]]:
        """Return (kind, text, references, decoded schema, named types that it refers to) of a request."""
        kind, text = body.get("schemaType") or "AVRO", body.get("schema")
        if not isinstance(text, str) or not text.strip():
            raise ApiError(42201, "Empty schema")
        if kind not in KINDS:
            raise ApiError(42201, f"Invalid schema type {kind}")
        try:
            references = [(r["name"], r["subject"], int(r["version"])) for r in body.get("references") or ()]
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

    def _version_of(self, name: str, subject: str, version: int) -> Version:
        """Return the version that a reference names."""
        match = next((v for v in self._store.versions(subject) if v.version == version), None)
        if match is None:
            raise ApiError(42201, f"Invalid schema: reference {name!r}: there is no version {version} of {subject!r}")
        return match

    # -- compatibility, levels, modes

    def _compatible_with(self, query: Query, subject: str, version: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._compatible(query, subject, [self._version(subject, version, query)], body)

    def _compatible_with_all(self, query: Query, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        versions = self._known(subject)
        return self._compatible(query, subject, versions if self._level(subject).endswith("_TRANSITIVE") else versions[-1:], body)

    def _compatible(self, query: Query, subject: str, versions: list[Version], body: Mapping[str, Any]) -> dict[str, Any]:
        kind, _, _, parsed, resolved = self._take(body)
        level = self._level(subject)
        transitive = level if level == "NONE" else level.removesuffix("_TRANSITIVE") + "_TRANSITIVE"
        found = self._breaks(transitive, kind, parsed, versions, resolved)
        answer: dict[str, Any] = {"is_compatible": not found}
        return {**answer, "messages": found} if is_true(query, "verbose") else answer

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

    def _level(self, subject: str) -> str:
        return (self._store.setting("level", subject) if subject else None) or self._store.setting("level") or DEFAULT_LEVEL

    def _get_level(self, query: Query, subject: str) -> dict[str, str]:
        if self._store.setting("level", subject) is None and not is_true(query, "defaultToGlobal"):
            raise ApiError(40408, f"Subject '{subject}' does not have subject-level compatibility configured")
        return {"compatibilityLevel": self._level(subject)}

    def _set_level(self, subject: str, body: Mapping[str, Any]) -> dict[str, str]:
        level = str(body.get("compatibility", "")).upper()
        if level not in LEVELS:
            raise ApiError(42203, f"Invalid compatibility level. Valid values are {', '.join(LEVELS)}")
        self._store.set("level", level, subject)
        return {"compatibility": level}

    def _mode(self, subject: str) -> str:
        return (self._store.setting("mode", subject) if subject else None) or self._store.setting("mode") or MODES[0]

    def _get_mode(self, query: Query, subject: str) -> dict[str, str]:
        if self._store.setting("mode", subject) is None and not is_true(query, "defaultToGlobal"):
            raise ApiError(40409, f"Subject '{subject}' does not have subject-level mode configured")
        return {"mode": self._mode(subject)}

    def _set_mode(self, subject: str, body: Mapping[str, Any], query: Query) -> dict[str, str]:
        mode = str(body.get("mode", "")).upper()
        if mode not in MODES:
            raise ApiError(42204, f"Invalid mode. Valid values are {', '.join(MODES)}")
        if mode == "IMPORT" and not is_true(query, "force") and self._store.versions(subject or None):
            raise ApiError(42205, "Cannot import since found existing subjects")
        self._store.set("mode", mode, subject)
        return {"mode": mode}

    def _unset(self, name: str, subject: str, code: int, shown: str, default: str) -> dict[str, str]:
        before = self._store.setting(name, subject)
        if before is None and subject:
            raise ApiError(code, f"Subject '{subject}' does not have subject-level {_SAID.get(name, name)} configured")
        self._store.set(name, None, subject)
        return {shown: before or default}

    # -- deleting

    def _delete_subject(self, query: Query, subject: str) -> list[int]:
        self._require_writable(subject)
        permanent = is_true(query, "permanent")
        everything = self._known(subject, deleted=True)
        alive = [v for v in everything if not v.is_deleted]
        if permanent and alive:
            raise ApiError(40405, f"Subject '{subject}' was not deleted first before being permanently deleted")
        if not permanent and not alive:
            raise ApiError(40404, f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently")
        for version in everything if permanent else alive:
            self._remove(version, permanent)
        return [v.version for v in (everything if permanent else alive)]

    def _delete_version(self, query: Query, subject: str, version: str) -> int:
        self._require_writable(subject)
        permanent = is_true(query, "permanent")
        found = self._version(subject, version, {"deleted": "true"} if version_number(version) is not None else {})
        if permanent and not found.is_deleted:
            raise ApiError(40407, f"Subject '{subject}' Version {version} was not deleted first before being permanently deleted")
        if not permanent and found.is_deleted:
            raise ApiError(40406, f"Subject '{subject}' Version {version} was soft deleted. Set permanent=true to delete permanently")
        self._remove(found, permanent)
        return found.version

    def _remove(self, version: Version, permanent: bool) -> None:
        place = (version.subject, version.version)
        if any(reference[1:] == place for v in self._store.versions() for reference in v.references):
            raise ApiError(42206, f"One or more references exist to the schema {version.subject} version {version.version}")
        self._store.delete_version(*place, permanent=permanent)

    def _require_writable(self, subject: str) -> None:
        if self._mode(subject) == "READONLY":
            raise ApiError(42205, f"Subject {subject} is in read-only mode")


def _check_protobuf(text: str) -> None:
    try:
        from cdc.protobuf_text import parse  # only where it is used: the library is an extra of its own
    except ModuleNotFoundError as error:
        raise ApiError(42201, "Invalid schema: for Protobuf this registry needs `pip install streamforge[protobuf]`") from error
    if not parse(text).message_type:
        raise RecordError("it has no message")

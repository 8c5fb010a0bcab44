"""Parts of requests and answers of the embedded registry, with the errors that Confluent's documentation names."""

import json
from collections.abc import Mapping
from typing import Any

from cdc.registry.store import Version

Query = Mapping[str, str]
References = tuple[tuple[str, str, int], ...]
_LATEST = ("latest", "-1")


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        """The HTTP status: the first three digits of a longer code."""
        return self.code if self.code < 1000 else self.code // 100


class Raw:
    """An answer that is a schema's text itself."""

    def __init__(self, text: str) -> None:
        self.text = text


def check_json(text: str) -> Any:
    """Return a JSON Schema decoded; raises ValueError if it is no JSON object or boolean."""
    parsed = json.loads(text)
    if not isinstance(parsed, dict | bool):
        raise ValueError("a JSON Schema is an object or a boolean")
    return parsed


def checked_body(body: Any) -> Mapping[str, Any]:
    """Return the body of a request, a JSON object."""
    if not isinstance(body, Mapping):
        raise ApiError(42201, "Empty schema" if body is None else "the request is not a JSON object")
    return body


def version_number(version: str) -> int | None:
    """Return the number of a version, None for the latest."""
    if version in _LATEST:
        return None
    if not version.isdigit() or not 0 < int(version) < 2**31:
        raise ApiError(
            42202, f"The specified version '{version}' is not a valid version id. Allowed values are between [1, 2^31-1] and 'latest'"
        )
    return int(version)


def shown(version: Version) -> dict[str, Any]:
    """Return a version as answers show it."""
    return {
        "subject": version.subject,
        "version": version.version,
        "id": version.id,
        **kind_and_references(version.kind, version.references),
        "schema": version.text,
    }


def kind_and_references(kind: str, references: References) -> dict[str, Any]:
    """Return what is said only of schemas that are not plain Avro."""
    shown: dict[str, Any] = {} if kind == "AVRO" else {"schemaType": kind}
    if references:
        shown["references"] = [{"name": name, "subject": subject, "version": version} for name, subject, version in references]
    return shown


def is_true(query: Query, name: str) -> bool:
    """Return whether a query says yes."""
    return query.get(name, "").lower() == "true"

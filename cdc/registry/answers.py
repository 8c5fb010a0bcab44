"""Parts of requests and answers of the embedded registry, with the errors that Confluent's documentation names."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from cdc.registry.store import Version

Query = Mapping[str, str]
References = tuple[tuple[str, str, int], ...]
_LATEST = ("latest", "-1")
_RESERVED = ("__GLOBAL", "__EMPTY")
_DEFAULT_CONTEXT = ":.:"


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        """The HTTP status: the first three digits of a longer code."""
        return self.code if self.code < 1000 else self.code // 100


def refuse(what: str, code: int = 42205) -> ApiError:
    """Return the answer to what this registry does not keep: it is refused, so that nobody relies on it."""
    return ApiError(code, f"this registry keeps no {what}: leave them out of the request, or use Confluent's own registry")


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
    if body is None:
        raise ApiError(422, "the request has no body")
    if not isinstance(body, Mapping):
        raise ApiError(400, "the request is not a JSON object")
    return body


def plain_subject(subject: str) -> str:
    """Return a subject without the name of the default context; others are not kept, so they are names that nothing has."""
    return subject.removeprefix(_DEFAULT_CONTEXT)


def writable_subject(subject: str) -> None:
    """Raise an ApiError if a subject cannot be called so."""
    if subject.startswith(":."):
        raise ApiError(
            42208,
            f"The specified subject '{subject}' is not valid: this registry has no contexts but the default one; "
            "name the subject without a context, or run a registry for each",
        )
    if subject in _RESERVED or any(unicodedata.category(letter) == "Cc" for letter in subject):
        raise ApiError(42208, f"The specified subject {subject!r} is not valid")


def page(query: Query, found: Sequence[Any]) -> list[Any]:
    """Return the part of an answer that `offset` and `limit` name; a negative limit is none."""
    try:
        offset, limit = int(query.get("offset", "0")), int(query.get("limit", "-1"))
    except ValueError as error:
        raise ApiError(404, "HTTP 404 Not Found") from error
    return list(found[max(offset, 0) :][: limit if limit >= 0 else None])


def number_of(text: str) -> int:
    """Return an id of a path; what is no number is no path."""
    if not re.fullmatch(r"[+-]?\d{1,10}", text, re.ASCII) or not -(2**31) <= int(text) < 2**31:
        raise ApiError(404, "HTTP 404 Not Found")
    return int(text)


def version_number(version: str) -> int | None:
    """Return the number of a version, None for the latest."""
    version = version.strip().lower()
    if version in _LATEST:
        return None
    if not re.fullmatch(r"\+?\d{1,10}", version, re.ASCII) or not 0 < int(version) < 2**31:
        raise ApiError(
            42202,
            f"The specified version '{version}' is not a valid version id. "
            'Allowed values are between [1, 2^31-1] and the string "latest"',
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

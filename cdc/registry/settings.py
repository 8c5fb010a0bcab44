"""Levels of compatibility, modes and normalising, of the whole registry and of single subjects.

    settings.level("orders-value")     "FULL": its own, else the global one, else BACKWARD

| mode              | schemas may be registered            | deleted, levels changed |
|-------------------|--------------------------------------|-------------------------|
| READWRITE         | yes, ids are given by the registry   | yes                     |
| READONLY          | no                                   | no                      |
| READONLY_OVERRIDE | no; set globally it beats the modes of the subjects | no       |
| IMPORT            | with ids of their own, unchecked     | yes                     |

Source: Confluent documentation, "Schema Registry API Reference", Config and Mode.
"""

from collections.abc import Mapping
from typing import Any

from cdc.registry.answers import ApiError, Query, is_true, refuse, writable_subject
from cdc.registry.rules import DEFAULT_LEVEL, LEVELS
from cdc.registry.store import SchemaStore

MODES = ("READWRITE", "READONLY", "READONLY_OVERRIDE", "IMPORT")
_RULES = ("defaultRuleSet", "overrideRuleSet", "validateRules")
_OTHERS = ("alias", "compatibilityGroup", "compatibilityPolicy", "defaultMetadata", "overrideMetadata", "validateFields")


class Settings:
    """The settings of a store. A subject is "" for the global ones."""

    def __init__(self, store: SchemaStore) -> None:
        self._store = store

    def level(self, subject: str) -> str:
        """Return the level that a subject is held to."""
        return self._in_scope("level", subject) or DEFAULT_LEVEL

    def mode(self, subject: str) -> str:
        """Return the mode that a subject is in."""
        if self._store.setting("mode") == "READONLY_OVERRIDE":
            return "READONLY_OVERRIDE"
        return self._in_scope("mode", subject) or MODES[0]

    def normalizes(self, subject: str, query: Query) -> bool:
        """Return whether a schema is compared in its normal form, because the request or the configuration says so."""
        return is_true(query, "normalize") or self._in_scope("normalize", subject) == "true"

    def require_writable(self, subject: str) -> None:
        """Raise an ApiError if nothing may be changed in a subject."""
        if self.mode(subject).startswith("READONLY"):
            raise ApiError(42205, f"Subject {subject} is in read-only mode" if subject else "The registry is in read-only mode")

    def require_registrable(self, subject: str, schema_id: int | None) -> None:
        """Raise an ApiError if a schema may not be registered with an id of its own, or not without one."""
        self.require_writable(subject)
        importing = self.mode(subject) == "IMPORT"
        if schema_id is not None and not importing:
            raise ApiError(42205, f"Subject {subject} is not in import mode: ids are given by the registry")
        if schema_id is None and importing:
            raise ApiError(42205, f"Subject {subject} is not in read-write mode: schemas are imported with the ids that they have")

    def get_config(self, query: Query, subject: str = "") -> dict[str, Any]:
        """Return the configuration of a subject, or the global one."""
        own = {name: self._store.setting(name, subject) for name in ("level", "normalize")}
        if subject and not any(own.values()) and not is_true(query, "defaultToGlobal"):
            raise ApiError(40408, f"Subject '{subject}' does not have subject-level compatibility configured")
        shown: dict[str, Any] = {"compatibilityLevel": self.level(subject)}
        normalize = self._in_scope("normalize", subject)
        return shown if normalize is None else {**shown, "normalize": normalize == "true"}

    def set_config(self, query: Query, body: Mapping[str, Any], subject: str = "") -> dict[str, Any]:
        """Keep a level, or whether to normalise, or both; return them."""
        writable_subject(subject)
        for code, names in ((42210, _RULES), (42205, _OTHERS)):
            refused = [name for name in names if body.get(name) not in (None, False)]
            if refused:
                raise refuse(", ".join(refused), code)
        level, normalize = body.get("compatibility"), body.get("normalize")
        if (level is None and normalize is None) or (level is not None and str(level).upper() not in LEVELS):
            raise ApiError(42203, f"Invalid compatibility level. Valid values are {', '.join(LEVELS)}")
        self.require_writable(subject)
        if level is not None:
            self._store.set("level", str(level).upper(), subject)
        if normalize is not None:
            self._store.set("normalize", "true" if normalize is True else "false", subject)
        shown = {"compatibility": None if level is None else str(level).upper(), "normalize": normalize}
        return {name: value for name, value in shown.items() if value is not None}

    def delete_config(self, query: Query, subject: str = "") -> dict[str, Any]:
        """Forget the configuration of a subject, or the global one; return what it was."""
        if subject and self._store.setting("level", subject) is None and self._store.setting("normalize", subject) is None:
            raise ApiError(40401, f"Subject '{subject}' not found.")
        self.require_writable(subject)
        before = self.get_config(query, subject)
        self._store.set("level", None, subject)
        self._store.set("normalize", None, subject)
        return before

    def get_mode(self, query: Query, subject: str = "") -> dict[str, str]:
        """Return the mode of a subject, or the global one."""
        if subject and self._store.setting("mode", subject) is None and not is_true(query, "defaultToGlobal"):
            raise ApiError(40409, f"Subject '{subject}' does not have subject-level mode configured")
        return {"mode": self.mode(subject)}

    def set_mode(self, query: Query, body: Mapping[str, Any], subject: str = "") -> dict[str, str]:
        """Keep a mode; IMPORT only where there is nothing yet, or by force."""
        writable_subject(subject)
        mode = str(body.get("mode", "")).upper()
        if mode not in MODES:
            raise ApiError(42204, f"Invalid mode. Valid values are {', '.join(MODES)}")
        if mode == "IMPORT" and self.mode(subject) != "IMPORT" and not is_true(query, "force"):
            self._make_room(subject)
        self._store.set("mode", mode, subject)
        return {"mode": mode}

    def delete_mode(self, query: Query, subject: str = "") -> dict[str, str]:
        """Forget the mode of a subject, or the global one; return what it was."""
        before = self._store.setting("mode", subject)
        if before is None and subject:
            raise ApiError(40401, f"Subject '{subject}' not found.")
        self._store.set("mode", None, subject)
        return {"mode": before or MODES[0]}

    def forget(self, subject: str) -> None:
        """Forget all of a subject that is gone for good."""
        for name in ("level", "normalize", "mode"):
            self._store.set(name, None, subject)

    def _make_room(self, subject: str) -> None:
        """Drop what is deleted softly, so that its ids and versions can be imported; nothing else may be there."""
        found = self._store.versions(subject or None, deleted=True)
        if any(not v.is_deleted for v in found):
            raise ApiError(42205, "Cannot import since found existing subjects")
        for version in found:
            self._store.delete_version(version.subject, version.version, permanent=True)
            self._store.drop_unused(version.id)

    def _in_scope(self, name: str, subject: str) -> str | None:
        return (self._store.setting(name, subject) if subject else None) or self._store.setting(name)

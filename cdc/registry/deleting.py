"""Soft and hard deletes of the embedded registry: softly first, for good afterwards, and never what others refer to.

A version that is deleted softly is no longer listed or compared with, but its id is still answered: records carry it. What is deleted
for good takes the id with it, where no other version has the same schema; the id is never given again.

Source: Confluent documentation, "Schema Deletion Guidelines".
"""

from cdc.registry.answers import ApiError, Query, is_true, version_number
from cdc.registry.settings import Settings
from cdc.registry.store import SchemaStore, Version


class Deletes:
    """Deletes from a store."""

    def __init__(self, store: SchemaStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def subject(self, query: Query, subject: str) -> list[int]:
        """Delete all versions of a subject; return their numbers. Nothing is deleted if one of them cannot be."""
        self._settings.require_writable(subject)
        permanent = is_true(query, "permanent")
        everything = self._store.versions(subject, deleted=True)
        alive = [v for v in everything if not v.is_deleted]
        if not everything:
            raise ApiError(40401, f"Subject '{subject}' not found.")
        if permanent and alive:
            raise ApiError(40405, f"Subject '{subject}' was not deleted first before being permanently deleted")
        if not permanent and not alive:
            raise ApiError(40404, f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently")
        doomed = everything if permanent else alive
        for version in doomed:
            self._require_unreferred(version, permanent=permanent, beside=subject)
        for version in doomed:
            self._remove(version, permanent=permanent)
        return [v.version for v in doomed]

    def version(self, query: Query, subject: str, version: str) -> int:
        """Delete a version of a subject; return its number."""
        wanted, permanent = version_number(version), is_true(query, "permanent")
        found = self._store.versions(subject, deleted=True)
        if not found:
            raise ApiError(40401, f"Subject '{subject}' not found.")
        if wanted is None:
            found = [v for v in found if v.is_deleted == permanent] or found
        match = next((v for v in reversed(found) if wanted in (None, v.version)), None)
        if match is None:
            raise ApiError(40402, f"Version {version} not found.")
        if not permanent and match.is_deleted:
            raise ApiError(40406, f"Subject '{subject}' Version {version} was soft deleted. Set permanent=true to delete permanently")
        self._settings.require_writable(subject)
        self._require_unreferred(match, permanent=permanent)
        if permanent and not match.is_deleted:
            raise ApiError(40407, f"Subject '{subject}' Version {version} was not deleted first before being permanently deleted")
        self._remove(match, permanent=permanent)
        return match.version

    def same_before(self, subject: str, schema_id: int) -> None:
        """Drop what was deleted softly of a schema that has been registered anew under a subject."""
        for version in self._store.versions(subject, deleted=True, schema_id=schema_id):
            if version.is_deleted and not referring(self._store, version, deleted=True):
                self._store.delete_version(subject, version.version, permanent=True)

    def _require_unreferred(self, version: Version, *, permanent: bool, beside: str | None = None) -> None:
        """Versions that are deleted softly can come back, so what they refer to is not deleted for good."""
        if any(other.subject != beside for other in referring(self._store, version, deleted=permanent)):
            raise ApiError(42206, f"One or more references exist to the schema {version.subject} version {version.version}")

    def _remove(self, version: Version, *, permanent: bool) -> None:
        self._store.delete_version(version.subject, version.version, permanent=permanent)
        if permanent:
            self._store.drop_unused(version.id)
            if not self._store.versions(version.subject, deleted=True):
                self._settings.forget(version.subject)


def referring(store: SchemaStore, version: Version, *, deleted: bool) -> list[Version]:
    """Return the versions that refer to one, those deleted softly too if that is asked for."""
    place = (version.subject, version.version)
    return [v for v in store.versions(deleted=deleted) if any(reference[1:] == place for reference in v.references)]

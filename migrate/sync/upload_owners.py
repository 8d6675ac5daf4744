"""Which unfinished upload belongs to which version of a large object: told by the record, so that parts of an older
version, begun with its metadata, are never gone on with.
"""

from __future__ import annotations

import hashlib

from migrate.bundle import canonical_json
from migrate.errors import DamageError, GoneError
from migrate.storage.api import MultipartStore
from migrate.storage.retry import Retrying
from migrate.storage.s3.destination_bucket import DestinationBucket

_FOLDER = "uploads/"


class Uploads:
    """The uploads that runs have begun. Thread-safe, as no key is copied twice at once."""

    def __init__(self, store: MultipartStore, destination: DestinationBucket) -> None:
        self._store, self._destination = store, destination

    def find(self, key: str, identity: str) -> str:
        """Return the upload of this version of an object, empty where there is none. One of another is dropped."""
        recorded = self._noted(key)
        if not recorded:
            return ""
        if recorded.get("which") == identity:
            return str(recorded.get("upload", ""))
        self._drop(key, recorded)
        return ""

    def note(self, key: str, identity: str, upload: str) -> None:
        """Say that an upload has begun."""
        value = {"version": 1, "key": key, "which": identity, "upload": upload}
        self._store.put(_file(key), canonical_json.encode(value))

    def end(self, key: str) -> None:
        """Say that an upload has become an object."""
        self._store.delete(_file(key))

    def forget(self, key: str) -> None:
        """Drop the upload of a key with all its parts."""
        if recorded := self._noted(key):
            self._drop(key, recorded)

    def clear(self) -> None:
        """Drop all uploads: those whose objects are there, or are not needed any more."""
        for info in list(self._store.list(_FOLDER)):
            recorded = self._read(info.key)
            self._drop(str(recorded.get("key", "")), recorded)

    def _drop(self, key: str, recorded: dict[str, object]) -> None:
        if recorded.get("upload"):
            Retrying(self._destination.parts()).abort(self._destination.prefix + key, str(recorded["upload"]))
        self.end(key)

    def _noted(self, key: str) -> dict[str, object]:
        return self._read(_file(key))

    def _read(self, name: str) -> dict[str, object]:
        try:
            return canonical_json.decode(self._store.read(name), name)
        except (GoneError, DamageError):
            return {}


def _file(key: str) -> str:
    return f"{_FOLDER}{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}.json"

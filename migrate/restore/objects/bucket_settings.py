"""A bucket's settings: written where possible, and read back. A setting that cannot be written is a loss. The one that
only a new bucket can get, object lock, is given to it when it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from exporters.api import Loss
from migrate.bundle import canonical_json
from migrate.bundle.object_index import bucket_details
from migrate.bundle.reader import BundleReader
from migrate.errors import GoneError, MoveoutError, UnreachableError
from migrate.restore.common.api import Created
from migrate.storage.s3.capability_probe import LOCK_DENIED
from migrate.storage.s3.destination_bucket import DestinationBucket, make_bucket_like, open_destination_bucket
from migrate.storage.s3.metadata.acl import canned, grants
from migrate.storage.s3.metadata.bucket_configuration import (
    OF_THE_HOST,
    accounts_keys,
    is_held,
    renamed,
    same_setting,
)

FIRST = ("encryption",)
"""Settings that must hold before the first object is written."""
UNREAD = ("denied", "failing")
"""Entries next to the settings: the names of those that could not be read."""
_HELD = (
    "the source was held: what moveout hold source denies is left out, and lifecycle rules that it has switched off are"
    " on. A hold also switches versioning on: look at that"
)
_MADE_WITHOUT = "the destination bucket was made without object lock; that cannot be changed later"
_DEFAULTS: Mapping[str, Any] = {"request-payment": {"Payer": "BucketOwner"}, "location": {}}
"""What a setting is where nobody has set it."""


def of_bundle(reader: BundleReader, source: str, destination: DestinationBucket) -> Settings:
    """Return the settings that a bundle has of a bucket; none where only a prefix was exported or is restored to."""
    details = bucket_details(reader, source)
    whole = not destination.prefix and not details.get("prefix")
    return Settings(_recorded(reader, source) if whole else {}, str(details.get("bucket", "")), destination)


def _recorded(reader: BundleReader, source: str) -> dict[str, Any]:
    file = next(reader.source_files(source, "bucket.json"), None)
    return canonical_json.decode(reader.read_checked(file), file.key) if file is not None else {}


def create_bucket(
    reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
) -> Created | None:
    """Make the bucket of a URL where there is none. See ``CreateDestination``. A restore writes all other settings."""
    try:
        open_destination_bucket(url, secrets=secrets)
    except GoneError:
        pass
    else:
        return None
    made = make_bucket_like(_recorded(reader, source), url, secrets=secrets)
    return Created(made.sentence, as_source=not made.refused)


class Settings:
    """The settings of a source's bucket, called ``old_name`` there, and the destination that is to have them."""

    def __init__(self, settings: Mapping[str, Any], old_name: str, destination: DestinationBucket) -> None:
        self.settings, self._old_name, self._destination = settings, old_name, destination

    def write_first(self) -> list[Loss]:
        """Write what must hold before objects are written."""
        return list(self._write({name: self.settings[name] for name in FIRST if name in self.settings}))

    def write_last(self) -> list[Loss]:
        """Write the rest: what acts on objects, or would be in the way of writing them."""
        rest = {name: value for name, value in self.settings.items() if name not in {*FIRST, *UNREAD}}
        return list(self._write(rest))

    def losses_before(self) -> Iterator[Loss]:
        """Yield what is known without trying."""
        for name in sorted(self.settings):
            if is_of_the_host(name, self.settings[name]) and self._matters(name):
                yield self._loss(name, OF_THE_HOST[name])
        for key in accounts_keys(self.settings.get("encryption", {})):
            yield self._loss("encryption", f"the key {key} is of the old account; the new one's own is used")
        if is_held(self.settings.get("policy", {})):
            yield self._loss("policy", _HELD)

    def _write(self, settings: Mapping[str, Any]) -> Iterator[Loss]:
        existing = self._destination.configuration() if settings else {}
        for name, value in sorted(settings.items()):
            new = renamed(name, value, self._old_name, self._destination.name)
            if not new or is_of_the_host(name, value) or same_setting(name, existing.get(name), new):
                continue
            if name == "object-lock" and self._destination.object_lock() is None:
                yield self._loss(name, LOCK_DENIED if self._destination.lock_denied else _MADE_WITHOUT)
                continue
            reason = self._try(name, new)
            if reason is not None:
                yield self._loss(name, reason)

    def _try(self, name: str, value: Mapping[str, Any]) -> str | None:
        try:
            if not self._destination.configure(name, value):
                return "there is no way to write it"
        except UnreachableError:
            raise
        except MoveoutError as exc:
            return f"the destination does not take it ({exc})"
        if not same_setting(name, self._destination.setting(name), value):
            return "the destination takes it, and has something else afterwards"
        return None

    def _matters(self, name: str) -> bool:
        value = self.settings[name]
        if name == "acl":
            return bool(grants(value))
        return bool(value) and value != _DEFAULTS.get(name) and name != "location"

    def _loss(self, name: str, reason: str) -> Loss:
        return Loss(self._destination.name, f"bucket {name}", reason)


def is_of_the_host(name: str, value: Mapping[str, Any]) -> bool:
    """Tell whether a setting means nothing at another host. An ACL that names no account means the same everywhere."""
    return name in OF_THE_HOST and not (name == "acl" and canned(value))

"""What lies at a bundle's location and is none of its files: of another bundle below it, or of somebody else."""

from __future__ import annotations

from collections.abc import Iterable

from migrate.bundle import layout
from migrate.bundle.reader import read_manifest, read_tag_manifest
from migrate.errors import DamageError, GoneError, UsageError
from migrate.storage.api import Store

_FOLDERS = (layout.DATA, *layout.OUTSIDE_MANIFESTS)
_FILES = {"", layout.BAGIT, layout.BAG_INFO, layout.MANIFEST, layout.TAG_MANIFEST, layout.REPORT}
"""Some programs make an object of the location itself, with an empty name below it."""


def unknown_payload(store: Store, keys: Iterable[str]) -> list[str]:
    """Return those of ``keys`` that are among the bundle's payload, and which its manifest does not name, sorted; none
    where that cannot be read.
    """
    payload_keys = {key for key in keys if key.startswith(layout.DATA)}
    try:
        payload_keys.difference_update(entry.key for entry in read_manifest(store))
    except (DamageError, GoneError, UsageError):
        return []
    return sorted(payload_keys)


def unknown_files(store: Store, keys: Iterable[str]) -> list[str]:
    """Return those of ``keys`` that are outside of the bundle's folders and no file of its tag manifest, sorted."""
    unknown_keys = sorted({key for key in keys if key not in _FILES and not key.startswith(_FOLDERS)})
    if not unknown_keys:
        return []
    try:
        known = read_tag_manifest(store)
    except DamageError:
        known = {}
    return [key for key in unknown_keys if key not in known]

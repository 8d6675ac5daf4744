"""What lies at a bundle's location and is none of its files: of another bundle below it, or of somebody else."""

from __future__ import annotations

from collections.abc import Iterable

from migrate.bundle import layout
from migrate.bundle.reader import read_tag_manifest
from migrate.errors import DamageError
from migrate.storage.api import Store

_FOLDERS = (layout.DATA, "meta/", *layout.BESIDE)
_FILES = {"", layout.BAGIT, layout.BAG_INFO, layout.MANIFEST, layout.TAG_MANIFEST, layout.REPORT}
"""Some programs make an object of the location itself, with an empty name below it."""


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

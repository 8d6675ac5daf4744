"""The names of a bundle's files. ``docs/FORMAT.md`` is the specification; this module is its only home in
code.
"""

from __future__ import annotations

import re

VERSION = 1

BAGIT = "bagit.txt"
BAG_INFO = "bag-info.txt"
MANIFEST = "manifest-sha256.txt"
TAG_MANIFEST = "tagmanifest-sha256.txt"
DATA = "data/"
CATALOG = "data/catalog.parquet"
LOSSES = "data/losses.parquet"
GAPS = "data/gaps.parquet"
FILES = "meta/files.jsonl"
BUNDLE_META = "meta/bundle.json"
RECONCILIATION = "meta/reconciliation.json"
REPORT = "REPORT.html"

SIGNATURES = "sig/"
TREE = "sig/tree.json"
TREE_NODES = "sig/tree-256.bin"
CHECKPOINT = "sig/checkpoint"
CUSTODY_LOG = "sig/custody.jsonl"
CUSTODY_HEAD = "sig/custody-head.json"
CHANGES = "changes/"
RESTORED = "restored/"
WORK = "_work/"
LOCAL = (WORK, CHANGES, RESTORED)
"""What lies next to a bundle and belongs to its location: a transfer leaves it there."""
OUTSIDE_MANIFESTS = (SIGNATURES, *LOCAL)
"""What lies next to a bundle, and is in no manifest."""
LEASE = "_work/lease.json"
EXPORT_STATE = "_work/export.json"
SEAL_STATE = "_work/seal.json"
RESERVE = "_work/reserve.bin"
TRANSFER_STATE = "_work/transfer.json"
PROGRESS = "_work/progress-"
_OF_OTHERS = (LEASE, RESERVE, PROGRESS)

_SAFE = re.compile(r"[a-z0-9._/-]+")
_SOURCE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DOCUMENT = re.compile(r"sig/[a-z]+-[0-9a-f]{16}\.json(\.[0-9a-f]{16}\.sig)?")


def is_payload_name(name: str) -> bool:
    """Tell whether ``name`` may be a file of the bundle: ``[a-z0-9._/-]+``, no empty, ``.`` or ``..``
    segment.
    """
    return bool(_SAFE.fullmatch(name)) and all(segment not in {"", ".", ".."} for segment in name.split("/"))


def is_payload(name: str) -> bool:
    """Tell whether ``name`` may be a payload file's."""
    return name.startswith(DATA) and is_payload_name(name)


def is_source_name(name: str) -> bool:
    """Tell whether ``name`` may name a source: lower-case letters, digits, ``-`` and ``_``, at most 63."""
    return bool(_SOURCE.fullmatch(name))


def source_file(source: str, name: str) -> str:
    """Return the key of a source's file: ``data/<source>/<name>``."""
    return f"{DATA}{source}/{name}"


def is_note_of_export(key: str) -> bool:
    """Tell whether only the export that holds the lease writes this key, or all keys of this prefix."""
    return len(key) > len(WORK) and key.startswith(WORK) and not key.startswith(_OF_OTHERS)


def workspace_file(source: str, name: str) -> str:
    """Return the key of a source's own notes: ``_work/<source>/state/<name>``."""
    return f"{WORK}{source}/state/{name}"


def commit_record(source: str, unit_id: str) -> str:
    """Return the key of a unit's commit record: ``_work/<source>/units/<unit id>.json``."""
    return f"{WORK}{source}/units/{unit_id}.json"


def units_prefix(source: str) -> str:
    """Return the prefix of a source's commit records."""
    return f"{WORK}{source}/units/"


def group_record(source: str, group: str) -> str:
    """Return the key of the commit record of several units: ``_work/<source>/groups/<group>.json``."""
    return f"{groups_prefix(source)}{group}.json"


def groups_prefix(source: str) -> str:
    """Return the prefix of the commit records of several units each."""
    return f"{WORK}{source}/groups/"


def duckdb_script(source: str) -> str:
    """Return the key of the script that makes a source's views in DuckDB: ``data/<source>/duckdb.sql``."""
    return source_file(source, "duckdb.sql")


def final_record(source: str) -> str:
    """Return the key of the record of a finished source: ``_work/<source>/final.json``."""
    return f"{WORK}{source}/final.json"


def plan_totals(source: str) -> str:
    """Return the key of the planned totals of a source: ``_work/<source>/plan.json``."""
    return f"{WORK}{source}/plan.json"


def progress_file(command: str) -> str:
    """Return the key of what a command says of its progress: ``_work/progress-<command>.json``."""
    return f"{PROGRESS}{command}.json"


def is_tag_name(name: str) -> bool:
    """Tell whether ``name`` may be a file outside ``data/``: like a payload name, capitals allowed
    (``REPORT.html``).
    """
    return is_payload_name(name.lower()) and name.isascii() and not name.startswith((DATA, *LOCAL))


def is_custody(name: str) -> bool:
    """Tell whether ``name`` is of the custody log, which belongs to the location where it lies."""
    return name in {CUSTODY_LOG, CUSTODY_HEAD}


def is_document(name: str) -> bool:
    """Tell whether ``name`` is a statement, such as a receipt, or the signature of one: it names the root that it is
    about, and stays evidence when the bundle is continued.
    """
    return _DOCUMENT.fullmatch(name) is not None

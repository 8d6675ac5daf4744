"""The definitions of a database file: as SQL for people, and entry by entry for a restore."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from exporters.sqlite.catalog import SchemaEntry
from exporters.structs import as_dict

SQL = "schema/schema.sql"
ENTRIES = "schema/entries.json"
PRAGMAS = "schema/pragmas.json"
_PRAGMAS = {"encoding": str, "page_size": int, "auto_vacuum": int, "user_version": int, "application_id": int}
_STATEMENTS = {
    "table": r"(?:VIRTUAL\s+)?TABLE",
    "index": r"(?:UNIQUE\s+)?INDEX",
    "view": "VIEW",
    "trigger": "TRIGGER",
}
_NUMBERS = range(-(2**63), 2**63)
_ENCODINGS = ("UTF-8", "UTF-16le", "UTF-16be")


def schema_files(entries: Sequence[SchemaEntry], pragmas: Mapping[str, Any]) -> dict[str, bytes]:
    """Return all three files by name."""
    script = "".join(
        f"{entry.sql};\n" for entry in entries if entry.sql and not entry.name.startswith("sqlite_")
    )
    return {
        SQL: script.encode(),
        ENTRIES: _json([as_dict(entry) for entry in entries]),
        PRAGMAS: _json(dict(pragmas)),
    }


def parse_entries(data: bytes) -> list[SchemaEntry]:
    """Read ``entries.json``. Raises ``ValueError``, ``TypeError`` or ``RecursionError``."""
    entries = [SchemaEntry(**row) for row in json.loads(data)]
    for entry in entries:
        texts = (entry.type, entry.name, entry.table, "" if entry.sql is None else entry.sql)
        is_number = isinstance(entry.number, int) and entry.number in _NUMBERS
        if not all(isinstance(text, str) for text in texts) or not is_number or not _makes_its_type(entry):
            raise ValueError(f"{entry} is not an entry of a schema")
    names = Counter((entry.type, entry.name.encode(errors="surrogatepass").lower()) for entry in entries)
    for (kind, name), count in names.most_common(1):
        if count > 1:
            raise ValueError(f"{kind} {name.decode(errors='backslashreplace')} is there {count} times")
    return entries


def _makes_its_type(entry: SchemaEntry) -> bool:
    """Tell whether the SQL of an entry makes what its type says. SQLite writes the first words alike."""
    statement = _STATEMENTS.get(entry.type)
    if entry.sql is None:
        return entry.type == "index"
    return (
        statement is not None and re.match(rf"CREATE\s+{statement}\s", entry.sql, re.IGNORECASE) is not None
    )


def parse_pragmas(data: bytes) -> dict[str, Any]:
    """Read ``pragmas.json``. Raises ``ValueError``, ``TypeError`` or ``RecursionError``."""
    pragmas = dict(json.loads(data))
    for name, kind in _PRAGMAS.items():
        if not isinstance(pragmas.get(name), kind):
            raise ValueError(f"{name} is {pragmas.get(name)!r}")  # noqa: TRY004  the file is wrong, not the caller
    if pragmas["encoding"] not in _ENCODINGS:
        raise ValueError(f"the encoding is {pragmas['encoding']!r}")
    return pragmas


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n"

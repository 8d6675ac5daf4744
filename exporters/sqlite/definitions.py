"""The definitions of a database file: as SQL for people, and entry by entry for a restore."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from exporters.api import Sink
from exporters.sqlite.catalog import SchemaEntry

SQL = "schema/schema.sql"
ENTRIES = "schema/entries.json"
PRAGMAS = "schema/pragmas.json"


def write_schema(sink: Sink, entries: Sequence[SchemaEntry], pragmas: Mapping[str, Any]) -> None:
    """Write all three files."""
    script = "".join(
        f"{entry.sql};\n" for entry in entries if entry.sql and not entry.name.startswith("sqlite_")
    )
    _write(sink, SQL, script.encode())
    _write(sink, ENTRIES, _json([asdict(entry) for entry in entries]))
    _write(sink, PRAGMAS, _json(dict(pragmas)))


def parse_entries(data: bytes) -> list[SchemaEntry]:
    """Read ``entries.json``. Raises ``ValueError`` or ``TypeError``."""
    return [SchemaEntry(**row) for row in json.loads(data)]


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def _write(sink: Sink, name: str, data: bytes) -> None:
    with sink.create(name) as file:
        file.write(data)

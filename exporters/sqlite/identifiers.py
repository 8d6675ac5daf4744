"""Names inside SQL text (https://sqlite.org/lang_keywords.html)."""

from __future__ import annotations

SCHEMA = "main"
"""What SQLite calls the schema of a database's own file."""


def quote_name(name: str) -> str:
    """Return ``name`` as a delimited identifier."""
    return '"' + name.replace('"', '""') + '"'


def is_own(name: str) -> bool:
    """Tell whether a table is SQLite's own (https://sqlite.org/fileformat2.html, 2.6)."""
    return name.startswith("sqlite_")


def label(schema: str, name: str) -> str:
    """Return ``"schema"."name"``."""
    return f"{quote_name(schema)}.{quote_name(name)}"

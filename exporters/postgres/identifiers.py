"""Names and literals inside SQL text. Every statement that is built from a customer's names goes through
here.
"""

from __future__ import annotations


def quote_name(name: str) -> str:
    """Return ``name`` as a delimited identifier (PostgreSQL documentation, 4.1.1)."""
    return '"' + name.replace('"', '""') + '"'


def quote_qualified(schema: str, name: str) -> str:
    """Return ``"schema"."name"``."""
    return f"{quote_name(schema)}.{quote_name(name)}"


def quote_literal(text: str) -> str:
    """Return ``text`` as a string literal that means the same whatever standard_conforming_strings says."""
    escaped = text.replace("'", "''")
    if "\\" in escaped:
        return " E'" + escaped.replace("\\", "\\\\") + "'"
    return f"'{escaped}'"

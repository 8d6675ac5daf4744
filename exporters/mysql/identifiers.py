"""Names and literals inside SQL text, for sessions whose sql_mode is pinned (``connection.PINNED``)."""

from __future__ import annotations


def quote_name(name: str) -> str:
    """Return ``name`` as a quoted identifier (MySQL manual, 9.2)."""
    return "`" + name.replace("`", "``") + "`"


def quote_literal(text: str) -> str:
    """Return ``text`` as a string literal (MySQL manual, 11.1.1)."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def of_database(column: str, schema: str = "{schema}") -> str:
    """Return the condition that a column of information_schema names the database ``schema``, which is SQL. MariaDB
    ignores case there, also on a server where two databases may differ in case only.
    """
    exactly = f"CAST({column} AS BINARY) = {schema}"
    return f"{column} = {schema} AND (@@lower_case_table_names > 0 OR {exactly})"

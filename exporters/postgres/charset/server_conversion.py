"""What a server says of text that is not in UTF-8: whether it comes through UTF-8 as it is, and what a code becomes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from exporters.postgres.charset.encodings import Ask
from exporters.postgres.errors import sqlstate
from exporters.postgres.identifiers import quote_literal
from exporters.postgres.query_rows import fetch

_BYTES = re.compile(r"0x[0-9a-f]{2}(?: 0x[0-9a-f]{2})*")
"""Bytes as report_untranslatable_char and report_invalid_encoding write them (src/backend/utils/mb/mbutils.c)."""
_UNCONVERTIBLE = frozenset({"22021", "22P05"})


def database_encoding(connection: psycopg.Connection[Any]) -> str:
    """Return the encoding of the connection's database, which the server says when a session begins (PostgreSQL
    documentation, "Asynchronous Operations" of the protocol); a pooler between may not pass that on.
    """
    encoding = connection.info.parameter_status("server_encoding")
    return encoding or fetch(connection, "SELECT pg_catalog.getdatabaseencoding() AS name")[0]["name"]


def is_unconvertible(error: BaseException) -> bool:
    """Tell whether a server could not convert some text."""
    return sqlstate(error) in _UNCONVERTIBLE


def refused(error: BaseException) -> bytes:
    """Return the code that the error names, whatever the server's language."""
    byte_lists = _BYTES.findall(str(error.__cause__ or error))
    return bytes(int(word, 16) for word in byte_lists[-1].split()) if byte_lists else b""


def conversions(codes: Sequence[bytes], encoding: str) -> str:
    """Return the query for what ``Ask`` returns, a row each."""
    name, digits = quote_literal(encoding), quote_literal(",".join(code.hex() for code in codes))
    return (
        f"SELECT u.text, pg_catalog.convert(u.text, 'UTF8', {name}) = u.code FROM (SELECT w.code, w.n,"
        f" pg_catalog.convert(w.code, {name}, 'UTF8') AS text FROM (SELECT pg_catalog.decode(d, 'hex') AS code, n"
        f" FROM pg_catalog.unnest(pg_catalog.string_to_array({digits}, ',')) WITH ORDINALITY AS t(d, n)) AS w)"
        " AS u ORDER BY u.n"
    )


def read_conversions(rows: Iterable[Sequence[bytes | None]]) -> list[tuple[bytes, bool]]:
    """Return the answer in the rows of that query, as texts."""
    return [
        (bytes.fromhex(text[2:].decode()), is_lossless == b"t")
        for text, is_lossless in rows
        if text is not None
    ]


def asking(connection: psycopg.Connection[Any], encoding: str) -> Ask:
    """Return a function that asks a server by a separate connection, within one transaction."""

    def ask(codes: Sequence[bytes]) -> Sequence[tuple[bytes, bool]] | bytes:
        try:
            with connection.transaction():
                rows = connection.execute(conversions(codes, encoding).encode()).fetchall()
        except psycopg.Error as exc:
            if is_unconvertible(exc):
                return refused(exc)
            raise
        return [(bytes(text), bool(is_lossless)) for text, is_lossless in rows]

    return ask

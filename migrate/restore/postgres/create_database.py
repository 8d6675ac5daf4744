"""Makes the database that a restore names, as the source's was: encoding, collation and character types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg

from exporters.errors import SourceGoneError
from exporters.postgres.definitions.collation import create_words
from exporters.postgres.errors import in_one_line, translate
from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.postgres.sessions.connection import connect, connect_to_server, parse_url
from migrate.bundle.reader import BundleReader
from migrate.restore.common.api import Created

_REFUSED = {"22023", "42704", "42601", "0A000", "42P17"}
"""SQLSTATEs of a server that lacks a locale, an encoding or a provider."""


def create_database(
    reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
) -> Created | None:
    """Make the database of a URL where there is none. See ``CreateDestination``."""
    address = parse_url(url, secrets)
    try:
        connect(address).close()
    except SourceGoneError:
        pass
    else:
        return None
    name = address.keywords["dbname"]
    with connect_to_server(address) as connection:
        return _create(connection, name, list(_clauses(reader, source)), address.url)


def create_statement(name: str, clause: str = "") -> str:
    """Return the statement that makes a database."""
    return f"CREATE DATABASE {quote_name(name)} TEMPLATE template0{clause}"


def source_clause(encoding: str | None, locale: Mapping[str, str] | None) -> str:
    """Return the clause of CREATE DATABASE for what is known of the source."""
    encoded = f" ENCODING {quote_literal(encoding)}" if encoding else ""
    return f"{encoded} {create_words(locale)}" if locale else encoded


def _clauses(reader: BundleReader, source: str) -> Iterator[str]:
    """Yield clauses of CREATE DATABASE: the source's own, then some that more servers take."""
    encoding = reader.last_position_value(source, "encoding")
    locale = reader.last_position_value(source, "locale")
    if locale:
        yield source_clause(encoding, locale)
    if encoding:
        encoded = source_clause(encoding, None)
        yield encoded
        yield f"{encoded} LC_COLLATE 'C' LC_CTYPE 'C'"
    yield ""


def _create(connection: psycopg.Connection[Any], name: str, clauses: list[str], shown: str) -> Created:
    """Make the database with the first clause that the server takes. Return what was done."""
    refusals: list[str] = []
    for clause in clauses:
        try:
            connection.execute(create_statement(name, clause).encode())
        except psycopg.Error as exc:
            if exc.sqlstate not in _REFUSED or clause == clauses[-1]:
                raise translate(exc, shown) from exc
            refusals.append(in_one_line(exc))
            continue
        made = f"made the database {name}:{clause or ' as the server makes them'}"
        if not refusals:
            return Created(made)
        otherwise = f"{made}, since the server has not what the source had ({refusals[0]})"
        return Created(otherwise, as_source=False)
    raise AssertionError("there is always a clause")

"""Makes the database that a restore names, with the source's character set and collation."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import pymysql
from msgspec.structs import replace

from exporters.errors import SourceGoneError
from exporters.mysql.connection import connect, parse_url
from exporters.mysql.definitions.show_create import create_database_statement, defaults_of
from exporters.mysql.errors import DRIVER_ERRORS, as_source_errors, is_about_the_thing, message_of, translate
from migrate.bundle.reader import BundleReader
from migrate.restore.common.api import Created
from migrate.restore.mysql.definitions import read_definitions


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
    database = next(
        (entry for entry in read_definitions(reader, source) if entry["kind"] == "database"), None
    )
    words = defaults_of({**database, "comment": ""}) if database else ""
    made = f"made the database {address.database}"
    with closing(connect(replace(address, database=""))) as connection:
        try:
            connection.run(create_database_statement(address.database, words))
        except DRIVER_ERRORS as exc:
            if not (words and isinstance(exc, pymysql.Error) and is_about_the_thing(exc)):
                raise translate(exc, address.url) from exc
            refusal = message_of(exc)
        else:
            return Created(f"{made}: {words}" if words else made)
        with as_source_errors(address.url):
            connection.run(create_database_statement(address.database))
    otherwise = f"{made} as the server makes them, since it has not what the source had ({refusal})"
    return Created(otherwise, as_source=False)

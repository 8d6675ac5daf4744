"""What tests do with databases of MariaDB and their bundles."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pymysql
from pymysql.constants import CLIENT

from exporters.mysql.catalog import read_tables
from exporters.mysql.connection import Connection, MysqlAddress, connect, parse_url
from exporters.mysql.definitions.show_create import Missing, read_definitions
from exporters.mysql.live_digests import digest_tables
from exporters.mysql.source import MysqlExporter
from exporters.row_digest import RowsDigest
from migrate.export.outcome import ExportOutcome
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.exporters.postgres.databases import NoBuckets


def open_database(url: str, **options) -> pymysql.Connection:
    """A plain session as the administrator; the password comes from the environment like moveout's."""
    address = parse_url(url)
    return pymysql.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=os.environ["MYSQL_PWD"],
        database=address.database,
        autocommit=True,
        ssl_disabled=True,
        client_flag=CLIENT.MULTI_STATEMENTS,
        **options,
    )


def run_sql(url: str, script: str) -> None:
    with open_database(url) as connection, connection.cursor() as cursor:
        cursor.execute(script)
        while cursor.nextset():
            pass


def fetch(url: str, query: str) -> list[tuple]:
    with open_database(url) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def session(url: str) -> Connection:
    return connect(parse_url(url))


def definitions(url: str) -> list[dict]:
    """All definitions, as SHOW CREATE prints them."""
    connection = session(url)
    missing = Missing()
    try:
        found = read_definitions(connection, read_tables(connection), missing)
    finally:
        connection.close()
    assert missing == Missing()
    return found


def live_tables(address: MysqlAddress, **choice) -> Mapping[tuple[str, str], RowsDigest]:
    """The digests of tables; ``choice``: see ``digest_tables``."""
    return digest_tables(address, **choice).digests


def checksums(url: str) -> dict[str, int]:
    """The server's own checksum of every table."""
    names = [row[0] for row in fetch(url, "SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'")]
    tables = ", ".join("`" + name.replace("`", "``") + "`" for name in names)
    return {name.split(".", 1)[1]: value for name, value in fetch(url, f"CHECKSUM TABLE {tables}")}


def client(program: str, url: str, *words: str, given: str = "") -> str:
    """Run one of MariaDB's programs on a database; the password is in the environment."""
    address = parse_url(url)
    login = [f"--host={address.host}", f"--port={address.port}", f"--user={address.user}", "--skip-ssl"]
    command = [program, "--no-defaults", *login, *words, address.database]
    given_bytes = given.encode(errors="surrogateescape")
    done = subprocess.run(command, input=given_bytes, capture_output=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode(errors="surrogateescape")


def dump(url: str) -> str:
    """What mariadb-dump says of a database's definitions."""
    words = ("--no-data", "--routines", "--triggers", "--events", "--skip-comments")
    return client("mariadb-dump", url, *words)


def export_database(url: str, location: Path, *, workers: int = 2) -> ExportOutcome:
    source = MysqlExporter().open("app", url, NoBuckets())
    return export([source], open_location(str(location)), workers=workers, progress=Silent())

"""What tests do with databases and their bundles."""

import subprocess
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from exporters.bucket_api import Bucket
from exporters.postgres.definitions.dump_programs import find_tools
from exporters.postgres.exporter import PostgresExporter
from exporters.postgres.sessions.connection import parse_url
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.export.outcome import ExportOutcome
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location


class NoBuckets:
    """A host for a source that asks for nothing."""

    def secret(self, name: str) -> str | None:
        return None

    def bucket(self, url: str) -> Bucket:
        raise NotImplementedError(url)


def run_sql(url: str, script: str) -> None:
    with psycopg.connect(url, autocommit=True, client_encoding="UTF8") as connection:
        connection.execute(script.encode())


def login(postgres, name: str, options: str = "") -> str:
    """The URL of a fresh database as a role that may do nothing; its password is the server's."""
    url = postgres.database()
    run_sql(
        postgres.url,
        f"DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN {options} PASSWORD '{postgres.password}'",
    )
    return url


def as_role(url: str, name: str) -> str:
    return url.replace("postgres@", f"{name}@")


def fetch(url: str, query: str) -> list[tuple]:
    with psycopg.connect(url, autocommit=True, client_encoding="UTF8") as connection:
        return connection.execute(query.encode()).fetchall()


def export_database(url: str, location: Path, *, workers: int = 2) -> ExportOutcome:
    source = PostgresExporter().open("app", url, NoBuckets())
    return export([source], open_location(str(location)), workers=workers, progress=Silent())


def table(reader: BundleReader, name: str) -> CatalogRow:
    """The catalog's row of a table."""
    return next(row for row in reader.catalog() if row.name == name)


def column(reader: BundleReader, table_name: str, column_name: str) -> list:
    """The values of a column in the first part of a table."""
    row = table(reader, table_name)
    part = reader.open(layout.source_file("app", row.details["parts"][0]["name"]))
    return pq.ParquetFile(part).read([column_name]).column(0).to_pylist()


def dump(url: str, *options: str) -> str:
    """What pg_dump says of a database; the key of psql's restricted mode is pinned, it is random otherwise."""
    return dump_bytes(url, *options).decode()


def dump_bytes(url: str, *options: str) -> bytes:
    """The same where the database's text need not be in an encoding."""
    tools = find_tools(int(fetch(url, "SHOW server_version_num")[0][0]) // 10000)
    with psycopg.connect(url, client_encoding="UTF8") as connection:
        environment = parse_url(url).environment(connection)
    del environment["PGCLIENTENCODING"]
    arguments = [tools.pg_dump, "--restrict-key=key", *options]
    return subprocess.run(arguments, env=environment, check=True, capture_output=True).stdout


def script(name: str) -> str:
    """One of the scripts beside the tests."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def make_refused(url: str) -> None:
    """Make what a server refuses when it is made anew. PostgreSQL 17 and newer refuse it at once: they make indexes
    with no schema in sight.
    """
    if int(fetch(url, "SHOW server_version_num")[0][0]) >= 170000:
        pytest.skip("this PostgreSQL has no such databases")
    run_sql(url, script("refused.sql"))


def has_xml(url: str) -> bool:
    """Tell whether this PostgreSQL is built with libxml."""
    try:
        fetch(url, "SELECT '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def run_each(url: str, statements: str) -> None:
    """Run a script's statements each by itself: values of an enum cannot be used in the transaction that adds them."""
    with psycopg.connect(url, autocommit=True) as connection:
        pending = ""
        for line in statements.splitlines(keepends=True):
            pending += line
            if (
                line.rstrip().endswith(";")
                and pending.count("$$") % 2 == 0
                and pending.count("$body$") % 2 == 0
            ):
                for statement in _split(pending):
                    connection.execute(statement.encode())
                pending = ""


def _split(text: str) -> list[str]:
    return text.split("; ") if "; ALTER TYPE size ADD" in text else [text]

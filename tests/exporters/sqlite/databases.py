"""What tests do with SQLite files and their bundles."""

import shutil
import sqlite3
import subprocess
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from exporters.bucket_api import Bucket
from exporters.sqlite.source import SqliteExporter
from migrate.export.outcome import ExportOutcome
from migrate.export.run import export
from migrate.restore.common.api import RestoreOutcome
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.tools.bundles import read_bundle, restore_from


class NoBuckets:
    """A host for a source that asks for nothing."""

    def secret(self, name: str) -> str | None:
        return None

    def bucket(self, url: str) -> Bucket:
        raise NotImplementedError(url)


def run_sql(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
        connection.commit()
    return path


def fetch(path: Path, query: str, *, factory=bytes) -> list[tuple]:
    """Read a file that nobody writes to; SQLite would leave files beside one in WAL mode otherwise."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True)) as connection:
        connection.text_factory = factory
        return connection.execute(query).fetchall()


def everything(path: Path) -> dict[str, list[tuple]]:
    """Every value of every real table as SQLite says it, with class, bytes and rowid, by independent queries."""
    content = {}
    tables = fetch(path, "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'", factory=str)
    for name, kind, without_rowid in tables:
        if kind in {"virtual", "view"} or name == "sqlite_schema":
            continue
        quoted = '"' + name.replace('"', '""') + '"'
        columns = [row[1] for row in fetch(path, f"PRAGMA table_xinfo({quoted})", factory=str)]
        names = ['"' + column.replace('"', '""') + '"' for column in columns]
        names += [] if without_rowid or {"rowid"} & {c.lower() for c in columns} else ["rowid"]
        query = ", ".join(f"typeof({n}), hex({n}), {n}" for n in names)
        rows = fetch(path, f"SELECT {query} FROM {quoted}")
        content[name] = sorted(rows, key=lambda row: (row[::3], row[1::3]))
    return content


def schema_of(path: Path) -> str | list[tuple]:
    """What ``sqlite3 FILE .schema`` prints, or the same by a query where the program is missing."""
    if shutil.which("sqlite3"):
        name = f"file:{quote(str(path))}?immutable=1"
        return subprocess.run(["sqlite3", name, ".schema"], capture_output=True, text=True, check=True).stdout
    return fetch(path, "SELECT sql FROM sqlite_schema ORDER BY rowid")


def settings(path: Path) -> dict[str, object]:
    names = ("encoding", "page_size", "auto_vacuum", "user_version", "application_id")
    values = {name: fetch(path, f"PRAGMA {name}", factory=str)[0][0] for name in names}
    return values | {"format": path.read_bytes()[18:20]}


def url_of(path: Path) -> str:
    return f"sqlite://{quote(str(path))}"


def export_file(path: Path, location: Path) -> ExportOutcome:
    source = SqliteExporter().open("app", url_of(path), NoBuckets())
    return export([source], open_location(str(location)), workers=2, progress=Silent())


def restore_file(location: Path, destination: Path, *only: str) -> RestoreOutcome:
    reader = read_bundle(location)
    return restore_from(reader, "app", url_of(destination), workers=2, only=only)


def losses_of(location: Path) -> set[str]:
    return {loss.property for _, loss in read_bundle(location).losses()}


def insert_all(path: Path, table: str, rows: Iterable[tuple]) -> None:
    rows = list(rows)
    with closing(sqlite3.connect(path)) as connection:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        connection.commit()

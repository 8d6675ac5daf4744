"""Definitions of a bundle that somebody else has made: refused in one sentence, and nothing is run that they hide."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from exporters.sqlite import definitions
from exporters.sqlite.address import parse_url
from migrate.errors import DamageError, NoSpaceError, UnreachableError, UsageError
from migrate.restore.sqlite import definitions as restored_definitions
from migrate.restore.sqlite import destination
from migrate.restore.sqlite.application_functions import StandIns

PRAGMAS = {"encoding": "UTF-8", "page_size": 4096, "auto_vacuum": 0, "user_version": 0, "application_id": 0}
ENTRY = {"number": 1, "type": "table", "name": "t", "table": "t", "sql": "CREATE TABLE t (a)"}


def test_what_an_export_writes_is_read():
    assert definitions.parse_pragmas(json.dumps(PRAGMAS).encode()) == PRAGMAS
    assert [entry.name for entry in definitions.parse_entries(json.dumps([ENTRY]).encode())] == ["t"]


@pytest.mark.parametrize(
    "document",
    [
        [],
        7,
        None,
        {},
        {**PRAGMAS, "page_size": "4096; DROP"},
        {**PRAGMAS, "encoding": "\ud800"},
        {**PRAGMAS, "auto_vacuum": None},
    ],
)
def test_other_settings_are_damage(document):
    with pytest.raises(DamageError, match="pragmas"):
        restored_definitions._parsed(definitions.parse_pragmas, json.dumps(document).encode(), "pragmas")


@pytest.mark.parametrize(
    "document",
    [
        *(7, None, [7], [{}], [{**ENTRY, "name": 7}], [{**ENTRY, "sql": []}]),
        [ENTRY, {**ENTRY, "name": "T", "number": 9}],
        *([{**ENTRY, "number": number}] for number in ("1", 2**63)),
        *([{**ENTRY, "sql": sql}] for sql in (None, "", "ATTACH 'x' AS y", "CREATE VIEW t AS SELECT 1")),
        *([{**ENTRY, "type": kind}] for kind in ("index", "view", "trigger", "other")),
    ],
)
def test_other_entries_are_damage(document):
    with pytest.raises(DamageError, match="entries"):
        restored_definitions._parsed(definitions.parse_entries, json.dumps(document).encode(), "entries")


@pytest.fixture
def connection():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.execute("CREATE TABLE t (a)")
        opened.execute("BEGIN")
        yield opened


@pytest.mark.parametrize(
    "entry",
    [
        {"number": 1, "type": "view", "name": "v", "table": "v", "sql": "CREATE VIEW v AS SELECT 1"},
        {"number": 2, "type": "view", "name": "v", "table": "v", "sql": "CREATE VIEW v AS"},
        {"number": 2, "type": "view", "name": "v", "table": "x", "sql": "CREATE VIEW v AS SELECT 1"},
        {
            "number": 2,
            "type": "trigger",
            "name": "r",
            "table": "x",
            "sql": "CREATE TRIGGER r AFTER INSERT ON x",
        },
    ],
)
def test_a_file_that_sqlite_could_not_open_is_not_made(connection, entry):
    entries = definitions.parse_entries(json.dumps([ENTRY, entry]).encode())
    made = restored_definitions.Definitions(entries, PRAGMAS, "schema/entries.json")
    with pytest.raises(DamageError, match=r"schema/entries\.json: expected definitions, found what SQLite 3"):
        restored_definitions.complete(connection, made)
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("t",)]


def test_an_index_that_cannot_be_made_is_named(connection):
    index = {"number": 2, "type": "index", "name": "i", "table": "x", "sql": "CREATE INDEX i ON x (a)"}
    with pytest.raises(UsageError, match="cannot make the index i: no such table"):
        restored_definitions.make_indexes(connection, definitions.parse_entries(json.dumps([index]).encode()))


def test_a_disk_that_is_full_is_no_fault_of_a_definition(connection, tmp_path):
    connection.execute("PRAGMA max_page_count = 2")
    entries = [{**ENTRY, "name": name, "sql": f"CREATE TABLE {name} (a)"} for name in "xyz"]
    with pytest.raises(NoSpaceError), destination.translated(parse_url(f"sqlite://{tmp_path}/app.db")):
        restored_definitions.make_tables(
            connection,
            definitions.parse_entries(json.dumps(entries).encode()),
            StandIns(connection),
            empty=False,
        )


@pytest.mark.parametrize(
    ("name", "kind"), [("SQLITE_IOERR_WRITE", UnreachableError), ("SQLITE_FULL", NoSpaceError)]
)
def test_a_failing_disk_is_told_as_what_it_is(tmp_path, name, kind):
    failing = sqlite3.OperationalError("disk I/O error")
    failing.sqlite_errorname = name
    with (
        pytest.raises(kind, match=r"app\.db") as caught,
        destination.translated(parse_url(f"sqlite://{tmp_path}/app.db")),
    ):
        raise failing
    assert "the same command again" in caught.value.next_step

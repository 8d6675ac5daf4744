"""Definitions of a bundle that somebody else has made: refused in one sentence, and nothing is run that they hide."""

from __future__ import annotations

import json
import sqlite3

import pytest

from exporters.sqlite import definitions
from exporters.sqlite.address import parse_url
from migrate.errors import DamageError, NoSpaceError, UnreachableError
from migrate.restore.sqlite import definitions as restored_definitions
from migrate.restore.sqlite import destination

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
        *([{**ENTRY, "number": number}] for number in ("1", 2**63)),
    ],
)
def test_other_entries_are_damage(document):
    with pytest.raises(DamageError, match="entries"):
        restored_definitions._parsed(definitions.parse_entries, json.dumps(document).encode(), "entries")


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

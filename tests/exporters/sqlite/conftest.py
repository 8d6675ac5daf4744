"""The torture database of the SQLite tests and its bundle."""

from pathlib import Path

import pytest

from tests.exporters.sqlite.databases import export_file, run_sql

TORTURE = Path(__file__).with_name("torture.sql")
SETTINGS = {
    "wal": "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;",
    "utf16": "PRAGMA encoding = 'UTF-16le'; PRAGMA page_size = 1024; PRAGMA auto_vacuum = FULL;",
    "plain": "",
}


@pytest.fixture(scope="session", params=["wal", "utf16", pytest.param("plain", marks=pytest.mark.torture)])
def torture(request, tmp_path_factory) -> Path:
    """A file with every kind of value and definition, in three formats."""
    path = tmp_path_factory.mktemp("torture") / "a %20?#b.db"
    return run_sql(path, SETTINGS[request.param] + TORTURE.read_text())


@pytest.fixture(scope="session")
def bundle(torture, tmp_path_factory) -> Path:
    """The location of its sealed bundle."""
    location = tmp_path_factory.mktemp("bundle") / "bundle"
    outcome = export_file(torture, location)
    assert outcome.complete, outcome.sources
    return location

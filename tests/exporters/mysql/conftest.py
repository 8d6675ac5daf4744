"""What the tests of the MySQL exporter and restore share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from migrate.bundle.reader import BundleReader
from tests.exporters.mysql.databases import export_database, run_sql
from tests.tools.bundles import read_bundle


@pytest.fixture(scope="session")
def my_torture(mariadb) -> str:
    """A database with every type, extreme values and odd definitions."""
    url = mariadb.database()
    run_sql(url, (Path(__file__).parent / "torture.sql").read_text())
    return url


@pytest.fixture(scope="session")
def my_torture_bundle(my_torture, tmp_path_factory) -> BundleReader:
    """The sealed bundle of ``my_torture``."""
    location = tmp_path_factory.mktemp("torture") / "bundle"
    outcome = export_database(my_torture, location)
    assert outcome.complete, outcome.sources
    return read_bundle(location)


@pytest.fixture
def my_exported(mariadb, tmp_path) -> Callable[[str], tuple[str, BundleReader]]:
    """Make a database by a script and export it."""

    def make(script: str) -> tuple[str, BundleReader]:
        url = mariadb.database()
        run_sql(url, script)
        location = tmp_path / "bundle"
        assert export_database(url, location).complete
        return url, read_bundle(location)

    return make

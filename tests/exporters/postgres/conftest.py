"""What the tests of the PostgreSQL exporter and restore share."""

from collections.abc import Callable

import pytest

from migrate.bundle.reader import BundleReader
from tests.exporters.postgres.databases import export_database, run_sql, script
from tests.tools.bundles import read_bundle


@pytest.fixture(scope="session")
def torture(postgres) -> str:
    """A database with every type, extreme values and odd definitions."""
    url = postgres.database(stays=True)
    run_sql(url, script("torture.sql"))
    return url


@pytest.fixture(scope="session")
def torture_bundle(torture, tmp_path_factory) -> BundleReader:
    """The sealed bundle of ``torture``."""
    location = tmp_path_factory.mktemp("torture") / "bundle"
    outcome = export_database(torture, location)
    assert outcome.complete, outcome.sources
    return read_bundle(location)


@pytest.fixture
def exported(postgres, tmp_path) -> Callable[[str], tuple[str, BundleReader]]:
    """Make a database by a script and export it."""

    def make(statements: str) -> tuple[str, BundleReader]:
        url = postgres.database()
        run_sql(url, statements)
        location = tmp_path / "bundle"
        assert export_database(url, location).complete
        return url, read_bundle(location)

    return make

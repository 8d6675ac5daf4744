"""Tables from which no row can be deleted come back, and are emptied where a run was interrupted."""

import pytest

from exporters.mysql.connection import parse_url
from migrate.restore.mysql.destination import make_empty, open_destination
from tests.exporters.mysql.databases import checksums, definitions, export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from


@pytest.fixture
def archived(mariadb, other_mariadb) -> str:
    servers = (mariadb.url, other_mariadb.url)
    for server in servers:
        run_sql(server, "INSTALL SONAME 'ha_archive'")
    url = mariadb.database()
    run_sql(
        url,
        "CREATE TABLE kept (id INT AUTO_INCREMENT, t VARCHAR(20), KEY (id)) ENGINE=ARCHIVE;"
        "INSERT INTO kept (t) VALUES ('a'), (NULL), ('it''s');"
        "CREATE TABLE numbered (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT) ENGINE=ARCHIVE AUTO_INCREMENT=7;"
        "INSERT INTO numbered (t) VALUES ('b'), ('c');"
        "CREATE TABLE later (id INT AUTO_INCREMENT, KEY (id)) ENGINE=ARCHIVE AUTO_INCREMENT=70",
    )
    yield url
    for server in servers:
        run_sql(server, "UNINSTALL SONAME 'ha_archive'")


def test_an_archive_comes_back_and_can_be_begun_again(archived, other_mariadb, tmp_path):
    assert export_database(archived, tmp_path / "bundle").complete
    destination = other_mariadb.database()
    outcome = restore_from(read_bundle(tmp_path / "bundle"), "app", destination)
    assert (outcome.findings, outcome.left_out, outcome.notes) == ((), (), ())
    assert definitions(destination) == definitions(archived)
    assert checksums(destination) == checksums(archived)
    with open_destination(parse_url(destination)) as opened:
        make_empty(opened.connection, "kept")
    assert fetch(destination, "SELECT * FROM kept") == []
    assert fetch(destination, "SHOW TABLES") == [("kept",), ("later",), ("numbered",)]

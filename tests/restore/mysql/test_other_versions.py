"""Tables of another server, which may not answer: they keep nobody from leaving, and no password leaves."""

import os

import pytest

from exporters.mysql.connection import parse_url
from tests.exporters.mysql.databases import export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from


@pytest.fixture
def federated(mariadb, other_mariadb) -> str:
    """A database with a table of another server, and that one's table is gone."""
    url = mariadb.database()
    address = parse_url(url)
    there = (
        f"mysql://{address.user}:{os.environ['MYSQL_PWD']}@{address.host}:{address.port}/{address.database}"
    )
    servers = (mariadb.url, other_mariadb.url)
    for server in servers:
        run_sql(server, "INSTALL SONAME 'ha_federatedx'")
    run_sql(
        url,
        "CREATE TABLE gone (id INT PRIMARY KEY); CREATE TABLE own (id INT PRIMARY KEY); INSERT INTO own VALUES (1)",
    )
    run_sql(
        url,
        f"CREATE TABLE far (id INT PRIMARY KEY) ENGINE=FEDERATED CONNECTION='{there}/gone'; DROP TABLE gone",
    )
    yield url
    run_sql(url, "DROP TABLE far")
    for server in servers:
        run_sql(server, "UNINSTALL SONAME 'ha_federatedx'")


def test_a_server_that_does_not_answer_keeps_nobody_from_leaving(federated, other_mariadb, tmp_path):
    location = tmp_path / "bundle"
    assert export_database(federated, location).complete
    reader = read_bundle(location)
    assert {(loss.item, loss.property) for _, loss in reader.losses()} >= {
        ("`far`", "rows"),
        ("`far`", "password"),
    }
    schema = "".join(file.read_text() for file in (location / "data/app/schema").iterdir())
    assert "ENGINE=FEDERATED" in schema
    assert os.environ["MYSQL_PWD"] not in schema
    destination = other_mariadb.database()
    outcome = restore_from(reader, "app", destination)
    assert outcome.findings == ()
    assert [one.partition(":")[0] for one in outcome.left_out] == ["table `far`"]
    assert fetch(destination, "SELECT * FROM own") == [(1,)]

"""Tables that a server cannot read, or cannot read to the end: they are named, and all others leave and come back."""

import pytest

from exporters.doctor import ExamineRequest
from exporters.mysql.discovery import discover
from exporters.mysql.doctor import examine
from migrate.errors import IncompleteError
from tests.exporters.mysql.databases import export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from


@pytest.fixture
def broken(mariadb) -> str:
    url = mariadb.database()
    folder = mariadb.directory / "data" / url.rpartition("/")[2]
    run_sql(
        url,
        "CREATE TABLE sound (id INT PRIMARY KEY); INSERT INTO sound VALUES (1), (2);"
        "CREATE TABLE emptied (id INT PRIMARY KEY); INSERT INTO emptied VALUES (1);"
        "CREATE TABLE undefined (id INT PRIMARY KEY); INSERT INTO undefined VALUES (1);"
        "CREATE TABLE cut (id INT PRIMARY KEY, t VARCHAR(2000)) ENGINE=MyISAM;"
        "INSERT INTO cut SELECT seq, REPEAT('x', 2000) FROM seq_1_to_1000;"
        "CREATE TRIGGER watch BEFORE INSERT ON undefined FOR EACH ROW SET NEW.id = NEW.id;"
        "CREATE TRIGGER count BEFORE INSERT ON sound FOR EACH ROW SET NEW.id = NEW.id + 1;"
        "CREATE VIEW seen AS SELECT id FROM undefined; CREATE VIEW sound_too AS SELECT id FROM sound;"
        "ALTER TABLE emptied DISCARD TABLESPACE; FLUSH TABLES",
    )
    (folder / "undefined.frm").write_bytes(b"no definition at all")
    with (folder / "cut.MYD").open("r+b") as file:
        file.truncate(1_000_000)
    return url


def test_tables_that_cannot_be_read_are_failed_by_name_and_the_others_leave(broken, other_mariadb, tmp_path):
    outcome = export_database(broken, tmp_path / "bundle")
    assert (outcome.complete, outcome.exit_code) == (False, IncompleteError.exit_code)
    gaps = {gap.item: gap.reason for gap in outcome.sources[0].gaps}
    assert gaps.keys() == {"`emptied`", "`undefined`", "`cut`", "trigger `watch`"}
    assert "undefined.frm" in gaps["`undefined`"]
    assert "Tablespace has been discarded" in gaps["`emptied`"]
    reader = read_bundle(tmp_path / "bundle")
    assert [(row.name, row.items) for row in reader.catalog()] == [("cut", 0), ("emptied", 0), ("sound", 2)]
    destination = other_mariadb.database()
    restored = restore_from(reader, "app", destination)
    assert ("view `seen`", "definition") in {(loss.item, loss.property) for _, loss in reader.losses()}
    assert restored.findings == ()
    lacking = {entry.partition(":")[0] for entry in restored.left_out}
    assert lacking == {f"the bundle itself lacks {item}" for item in gaps}
    assert fetch(destination, "SELECT id FROM sound_too ORDER BY id") == [(1,), (2,)]


def test_a_system_table_that_is_gone_costs_what_it_lists(mariadb, tmp_path):
    url, without_tables = mariadb.database(), mariadb.database()
    run_sql(url, "CREATE TABLE t (a INT); INSERT INTO t VALUES (1)")
    run_sql(without_tables, "CREATE VIEW v AS SELECT 1 AS a")
    run_sql(mariadb.url, "RENAME TABLE mysql.event TO mysql.event_away")
    try:
        outcome = export_database(url, tmp_path / "bundle")
        views = export_database(without_tables, tmp_path / "views")
        server = discover(
            mariadb.url.rpartition("/")[0], secrets={"password": mariadb.password}, note=lambda _: None
        )
        examined = examine(ExamineRequest(url, {"password": mariadb.password}))
    finally:
        run_sql(mariadb.url, "RENAME TABLE mysql.event_away TO mysql.event")
    assert (outcome.exit_code, views.exit_code) == (IncompleteError.exit_code, IncompleteError.exit_code)
    for bundle in (outcome, views):
        (gap,) = bundle.sources[0].gaps
        assert (gap.item, gap.disposition) == ("events", "failed")
        assert "mysql.event" in gap.reason
    assert [(row.name, row.items) for row in read_bundle(tmp_path / "bundle").catalog()] == [("t", 1)]
    assert "VIEW `v`" in (tmp_path / "views/data/app/schema/schema.sql").read_text()
    assert {url, without_tables} <= {source.url for source in server.sources}
    (finding,) = (finding for finding in examined.findings if finding.check == "system tables")
    assert (finding.severity, finding.object) == ("loses", "events")
    assert "mariadb-upgrade" in finding.fix.text


def test_what_waits_in_two_phases_is_named_with_the_statements_that_end_it(mariadb, tmp_path):
    url = mariadb.database()
    run_sql(url, "CREATE TABLE t (n INT); INSERT INTO t VALUES (1)")
    name = "X'7761697473',X'',1"
    run_sql(url, "XA START 'waits'; INSERT INTO t VALUES (2); XA END 'waits'; XA PREPARE 'waits'")
    try:
        examined = examine(ExamineRequest(url, {"password": mariadb.password}))
        assert export_database(url, tmp_path).complete
    finally:
        run_sql(url, f"XA ROLLBACK {name}")
    [finding] = [finding for finding in examined.findings if finding.check == "transactions"]
    assert (finding.severity, finding.object) == ("loses", f"prepared transaction {name}")
    assert finding.fix.text == f"XA COMMIT {name}; or XA ROLLBACK {name}; whichever is right"
    losses = [loss for _, loss in read_bundle(tmp_path).losses() if loss.property == "all of it"]
    assert [loss.item for loss in losses] == [f"prepared transaction {name}"]

"""What a restore leaves out it names each time, and a damaged file of a bundle costs its own rows only."""

import json
import os
import signal
from pathlib import Path

import pytest

from exporters.mysql import chunk_plan as plans
from exporters.mysql import live_digests
from exporters.mysql.connection import parse_url
from migrate.bundle import layout
from migrate.errors import DamageError
from migrate.restore.mysql.rows import load_rows as mysql_rows
from tests.cli.conftest import call
from tests.export.victims import run
from tests.exporters.mysql.databases import export_database, fetch, live_tables, run_sql
from tests.tools.bundles import put_in_place_of, read_bundle, restore_from

SOURCE = """
CREATE TABLE gone (a INT); CREATE VIEW broken AS SELECT * FROM gone; DROP TABLE gone;
CREATE TABLE placed (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, h GEOMETRY, g GEOMETRY NOT NULL);
ALTER TABLE placed ADD UNIQUE KEY `u` (id, h(4), g(16)); INSERT INTO placed (g) VALUES (POINT(1,1));
CREATE TABLE big (a INT PRIMARY KEY, b VARCHAR(200));
INSERT INTO big SELECT seq, REPEAT(MD5(seq), 4) FROM seq_1_to_20000; ANALYZE TABLE big;
CREATE TABLE other AS SELECT seq AS a FROM seq_1_to_10;
CREATE TRIGGER fires BEFORE INSERT ON big FOR EACH ROW SET NEW.b = 'fired';
"""
LEFT_OUT = ["table `placed`", "view `broken`"]


@pytest.fixture(scope="module")
def source(mariadb, tmp_path_factory):
    """A database, and its bundle."""
    url, location = mariadb.database(), tmp_path_factory.mktemp("left-out") / "bundle"
    run_sql(url, SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "CHUNK_BYTES", 300_000)
        assert export_database(url, location).complete
    return url, location


def restore(location: Path, destination: str):
    return restore_from(read_bundle(location), "app", destination, workers=2)


def die_late(location: str, destination: str, where: str) -> None:
    """Restore, and be killed among the rows of the large table, or when all is there and is to be compared."""
    real = mysql_rows.mark_done

    def mark(connection, *names):
        real(connection, *names)
        if any(name.startswith("tables/") and name.endswith("2.parquet") for name in names):
            os.kill(os.getpid(), signal.SIGKILL)

    def compare(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    if where == "rows":
        mysql_rows.mark_done = mark
    else:
        live_digests.digest_tables = compare
    restore(Path(location), destination)


@pytest.mark.torture
def test_a_restore_that_was_killed_or_is_repeated_names_what_it_left_out(source, other_mariadb, tmp_path):
    _, location = source
    destination = other_mariadb.database()
    for where in ("rows", "comparison"):
        victim = run(die_late, str(location), destination, where)
        victim.join()
        assert victim.exitcode == -signal.SIGKILL
    account = ("--report-to", tmp_path / "account", "--json", "--quiet")
    ended = [call("restore", location, f"app={destination}", *account) for _ in range(2)]
    for one in ended:
        (restored,) = one.json["result"]["restored"]
        assert (one.code, restored["findings"]) == (3, []), one.err
        assert sorted(entry.partition(":")[0] for entry in restored["left_out"]) == LEFT_OUT
        assert "DROP TABLE `moveout_restore_left_out`" in restored["notes"][-1]
    verified = call("verify", location, "--against", f"app={destination}", "--json", "--quiet")
    (compared,) = verified.json["result"]["compared"]
    assert (verified.code, compared["findings"]) == (3, [])
    assert sorted(entry.partition(":")[0] for entry in compared["left_out"]) == LEFT_OUT
    again = export_database(destination, tmp_path / "again")
    assert {loss.item for _, loss in read_bundle(tmp_path / "again").losses()} >= {
        "`moveout_restore_left_out`"
    }
    assert again.complete
    assert "moveout_restore_left_out" not in {row.name for row in read_bundle(tmp_path / "again").catalog()}
    run_sql(destination, "INSERT INTO other VALUES (99)")
    changed = restore(location, destination)
    assert changed.findings == ("`other`: expected 10 rows, found 11",)
    assert len(changed.left_out) == 2
    run_sql(destination, "DROP TABLE moveout_restore_left_out, big, placed, other")
    assert sorted(one.partition(":")[0] for one in restore(location, destination).left_out) == LEFT_OUT


def test_all_that_is_whole_comes_back_and_the_rest_after_a_repair(source, other_mariadb):
    url, location = source
    destination, reader = other_mariadb.database(), read_bundle(location)
    rows = {row.name: row.details["parts"] for row in reader.catalog()}
    damaged = location / layout.source_file("app", rows["big"][1]["name"])
    missing = location / layout.source_file("app", rows["other"][0]["name"])
    whole = {path: path.read_bytes() for path in (damaged, missing)}
    damaged.write_bytes(whole[damaged][: len(whole[damaged]) // 2])
    missing.unlink()
    try:
        for _ in range(2):
            outcome = restore(location, destination)
            assert [one.partition(": ")[0] for one in outcome.findings] == ["`big`", "`other`"]
            assert "moveout transfer --recheck" in " ".join(outcome.notes)
            assert sorted(one.partition(":")[0] for one in outcome.left_out) == [
                "table `placed`",
                "trigger `fires`",
                "view `broken`",
            ]
        assert fetch(destination, "SELECT COUNT(*) FROM big") == [(20000 - rows["big"][1]["rows"],)]
    finally:
        for path, data in whole.items():
            path.write_bytes(data)
    outcome = restore(location, destination)
    assert outcome.findings == ()
    assert sorted(one.partition(":")[0] for one in outcome.left_out) == LEFT_OUT
    assert live_tables(parse_url(destination)) == live_tables(parse_url(url))
    assert fetch(destination, "SHOW TRIGGERS")[0][0] == "fires"


def test_a_table_without_a_definition_and_defaults_that_the_server_has_not_are_named(
    mariadb, other_mariadb, tmp_path
):
    url, destination = mariadb.database(), other_mariadb.database()
    run_sql(url, "CREATE TABLE plain AS SELECT 1 AS a; CREATE TABLE undefined AS SELECT 2 AS a")
    assert export_database(url, tmp_path).complete
    key = layout.source_file("app", "schema/definitions.json")
    definitions = json.loads((tmp_path / key).read_bytes())
    definitions[0]["collation"] = "utf8mb4_of_tomorrow"
    kept = [definition for definition in definitions if definition["name"] != "undefined"]
    put_in_place_of(tmp_path, key, key, json.dumps(kept).encode())
    outcome = restore(tmp_path, destination)
    assert [entry.partition(": ")[0] for entry in outcome.left_out] == [
        "CHARACTER SET utf8mb4 COLLATE utf8mb4_of_tomorrow of the database",
        "table `undefined`",
    ]
    assert fetch(destination, "SELECT a FROM plain") == [(1,)]


def test_no_row_is_written_through_a_table_into_another_database(mariadb, other_mariadb, tmp_path):
    url, live = mariadb.database(), other_mariadb.database()
    run_sql(live, "CREATE TABLE users (a INT) ENGINE = MyISAM")
    run_sql(url, "CREATE TABLE t (a INT) ENGINE = MyISAM; INSERT INTO t VALUES (1)")
    assert export_database(url, tmp_path).complete
    key = layout.source_file("app", "schema/definitions.json")
    definitions = json.loads((tmp_path / key).read_bytes())
    name = parse_url(live).database
    merged = f"ENGINE=MERGE UNION=(`{name}`.users) INSERT_METHOD=LAST"
    definitions[1]["sql"] = definitions[1]["sql"].replace("ENGINE=MyISAM", merged)
    put_in_place_of(tmp_path, key, key, json.dumps(definitions).encode())
    with pytest.raises(DamageError, match="whose engine MRG_MyISAM has none of its own"):
        restore(tmp_path, other_mariadb.database())
    assert fetch(live, "SELECT * FROM users") == []

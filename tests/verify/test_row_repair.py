"""``verify --against … --repair`` makes rows that differ equal to the bundle's again, on every engine."""

import pytest

from exporters.postgres.live_rows import live_rows
from exporters.postgres.sessions.connection import parse_url
from migrate.case.model import Endpoint
from migrate.changes.delta_record import DeltaRecord, write_delta
from migrate.repair.live_repair import repair_from_source
from migrate.repair.repair import TableRepair
from migrate.repair.row_differences import row_differences
from migrate.repair.row_sides import ServerSide
from migrate.restore.sqlite import row_repair
from migrate.storage.registry import open_location
from tests.cli.conftest import call
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres.databases import run_sql
from tests.tools.mysql_settings import global_settings
from tests.verify.fresh_databases import (
    MariadbDatabase,
    PostgresDatabase,
    SqliteDatabase,
    exported_database,
)

ROWS = 500
TABLES = ("items", "keyless", "swapped", "parents", "children")


class Postgres(PostgresDatabase):
    """A database whose tables have triggers, foreign keys, unique and generated columns, or no key at all."""

    make = f"""
        CREATE TABLE items (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, price numeric(10,2), data bytea,
          at timestamptz, total numeric GENERATED ALWAYS AS (price * 2) STORED);
        INSERT INTO items (name, price, data, at) SELECT 'item "' || n || E'",\\n\\\\.', n * 1.25,
          decode(md5(n::text), 'hex'), timestamptz '2024-01-01' + n * interval '1 hour'
          FROM generate_series(1, {ROWS}) n;
        CREATE TABLE keyless (a int, b text);
        INSERT INTO keyless SELECT n % 20, CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'x' END
          FROM generate_series(1, {ROWS}) n;
        CREATE TABLE swapped (id int PRIMARY KEY, place int UNIQUE);
        INSERT INTO swapped SELECT n, n FROM generate_series(1, 50) n;
        CREATE TABLE parents (id int PRIMARY KEY);
        CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE);
        INSERT INTO parents SELECT generate_series(1, 20);
        INSERT INTO children SELECT n, n FROM generate_series(1, 20) n;
        CREATE TABLE noted (n int);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
          AS 'BEGIN INSERT INTO noted VALUES (1); RETURN NULL; END';
        CREATE TRIGGER note AFTER INSERT OR DELETE ON items FOR EACH ROW EXECUTE FUNCTION note();
        ALTER TABLE items ENABLE ALWAYS TRIGGER note;
        CREATE TABLE measured (day date, value int) PARTITION BY RANGE (day);
        CREATE TABLE measured_1 PARTITION OF measured FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
        INSERT INTO measured SELECT date '2024-01-01' + n, n FROM generate_series(1, 100) n
    """
    change = (
        "ALTER TABLE items DISABLE TRIGGER note",
        "UPDATE items SET price = 0, name = NULL WHERE id IN (3, 400)",
        "DELETE FROM items WHERE id = 17",
        "INSERT INTO items (name) VALUES ('more')",
        "ALTER TABLE items ENABLE ALWAYS TRIGGER note",
        "DELETE FROM keyless WHERE ctid = (SELECT ctid FROM keyless WHERE a = 7 LIMIT 1)",
        "INSERT INTO keyless SELECT 8, b FROM keyless WHERE a = 8 LIMIT 3",
        "UPDATE swapped SET place = 51 - place + 100",
        "UPDATE swapped SET place = place - 100",
        "DELETE FROM parents WHERE id < 4",
        "UPDATE measured SET value = -1 WHERE value = 50",
    )
    triggers = "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal"


class Mariadb(MariadbDatabase):
    """The same in MariaDB, whose triggers cannot be kept from firing; in tables, too, that know no transactions."""

    make = f"""
        CREATE TABLE items (id int AUTO_INCREMENT PRIMARY KEY, name text, price decimal(10,2), data varbinary(20),
          at timestamp(3) NULL, total decimal(12,2) AS (price * 2) STORED, rate float, shape point, doc json);
        INSERT INTO items (name, price, data, at, rate, shape, doc) SELECT CONCAT('item "', seq, '\\'\\\\'), seq * 1.25,
          UNHEX(MD5(seq)), TIMESTAMP '2024-01-01 00:00:00' + INTERVAL seq HOUR, seq / 7, POINT(seq, 1), '{{"a": 1}}'
          FROM seq_1_to_{ROWS};
        CREATE TABLE keyless (a int, b text CHARACTER SET latin1, c double, d varbinary(9), e date) ENGINE=MyISAM;
        INSERT INTO keyless SELECT seq % 20, CASE seq % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'é' END, seq % 20 / 7,
          UNHEX('FF00'), '2024-02-29' FROM seq_1_to_{ROWS};
        CREATE TABLE swapped (id int PRIMARY KEY, place int UNIQUE) ENGINE=Aria;
        INSERT INTO swapped SELECT seq, seq FROM seq_1_to_50;
        CREATE TABLE parents (id int PRIMARY KEY);
        CREATE TABLE children (id int PRIMARY KEY, parent int, FOREIGN KEY (parent) REFERENCES parents (id)
          ON DELETE CASCADE);
        INSERT INTO parents SELECT seq FROM seq_1_to_20;
        INSERT INTO children SELECT seq, seq FROM seq_1_to_20;
        CREATE TABLE noted (n int);
        CREATE TRIGGER note AFTER INSERT ON items FOR EACH ROW INSERT INTO noted VALUES (1);
        CREATE TRIGGER note_too BEFORE DELETE ON items FOR EACH ROW INSERT INTO noted VALUES (2)
    """
    change = (
        "UPDATE items SET price = 0, name = NULL WHERE id IN (3, 400)",
        "DELETE FROM items WHERE id = 17",
        "INSERT INTO items (name) VALUES ('more')",
        "DELETE FROM noted",
        "DELETE FROM keyless WHERE a = 7 LIMIT 1",
        "INSERT INTO keyless SELECT * FROM keyless WHERE a = 8 LIMIT 3",
        "UPDATE swapped SET place = 51 - place + 100",
        "UPDATE swapped SET place = place - 100",
        "DELETE FROM parents WHERE id < 4",
    )
    triggers = (
        "SELECT TRIGGER_NAME, ACTION_STATEMENT, DEFINER FROM information_schema.TRIGGERS"
        " WHERE TRIGGER_SCHEMA = DATABASE() ORDER BY 1"
    )


class Sqlite(SqliteDatabase):
    """The same in a SQLite file, whose values have types of their own."""

    make = f"""
        CREATE TABLE items (id INTEGER PRIMARY KEY, name, price, total AS (price * 2) STORED);
        WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {ROWS})
        INSERT INTO items SELECT n, CASE n % 4 WHEN 0 THEN n WHEN 1 THEN '' || n WHEN 2 THEN zeroblob(n) ELSE 9e999 END,
          n * 1.25 FROM s;
        CREATE TABLE keyless AS SELECT id % 20 AS a, name AS b FROM items;
        CREATE TABLE swapped (id TEXT PRIMARY KEY COLLATE NOCASE, place UNIQUE) WITHOUT ROWID;
        INSERT INTO swapped SELECT 'k' || id, id FROM items WHERE id <= 50;
        CREATE TABLE parents (id INTEGER PRIMARY KEY);
        CREATE TABLE children (id INTEGER PRIMARY KEY, parent REFERENCES parents ON DELETE CASCADE);
        INSERT INTO parents SELECT id FROM items WHERE id <= 20;
        INSERT INTO children SELECT id, id FROM parents;
        CREATE TABLE noted (n);
        CREATE TRIGGER note AFTER INSERT ON items BEGIN INSERT INTO noted VALUES (1); END;
    """
    change = (
        "UPDATE items SET price = 0, name = NULL WHERE id IN (3, 400)",
        "DELETE FROM items WHERE id = 17",
        "INSERT INTO items (name) VALUES ('more')",
        "DELETE FROM noted",
        "DELETE FROM keyless WHERE rowid = (SELECT rowid FROM keyless WHERE a = 7 LIMIT 1)",
        "INSERT INTO keyless SELECT * FROM keyless WHERE a = 8 LIMIT 3",
        "UPDATE swapped SET place = 51 - place + 100",
        "UPDATE swapped SET place = place - 100",
        "DELETE FROM parents WHERE id < 4",
        "DELETE FROM children WHERE id < 4",
    )
    triggers = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"


@pytest.fixture(params=[Postgres, Mariadb, Sqlite], ids=["postgres", "mariadb", "sqlite"])
def database(request, tmp_path):
    """A fresh database and its bundle."""
    return exported_database(request, tmp_path)


def repair(database, *options, code):
    against = ["--against", f"app={database.url}"]
    ended = call("verify", database.location, *against, "--repair", *options, "--json")
    assert ended.code == code, ended
    (compared,) = ended.json["result"]["compared"]
    return compared


def counts(compared):
    """Rows inserted, updated and deleted of each table."""
    names = [table["table"].replace("`", '"').split('"')[-2] for table in compared["repaired"]]
    kinds = ("inserted", "updated", "deleted", "refused")
    return {
        name: tuple(table[kind] for kind in kinds)
        for name, table in zip(names, compared["repaired"], strict=True)
    }


@pytest.mark.parametrize(
    "database",
    [Postgres, pytest.param(Mariadb, marks=pytest.mark.torture), Sqlite],
    indirect=True,
    ids=["postgres", "mariadb", "sqlite"],
)
def test_a_live_source_gives_the_rows_that_the_bundle_does_not_have(database, tmp_path):
    (tmp_path / "other").mkdir()
    other = type(database)(database.server, tmp_path / "other")
    other.location = database.location
    database.run("INSERT INTO parents VALUES (77)")
    other.run(*database.change)
    compared = repair(other, "--from", f"app={database.url}", code=0)
    assert counts(compared)["parents"] == (4, 0, 0, 0)
    assert counts(compared)["items"] == (1, 2, 1, 0)
    for table in TABLES:
        query = (
            f"SELECT * FROM {table} ORDER BY 1, 2"
            if table != "parents"
            else f"SELECT * FROM {table} ORDER BY 1"
        )
        assert other.fetch(query) == database.fetch(query)


def test_few_rows_leave_two_servers_that_differ_in_few(postgres):
    make = "CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t SELECT n, md5(n::text) FROM generate_series"
    urls = [postgres.database(), postgres.database()]
    for url in urls:
        run_sql(url, f"{make}(1, 30000) n; ANALYZE")
    run_sql(urls[1], "UPDATE t SET name = NULL WHERE id % 3000 = 0")
    with live_rows(parse_url(urls[0])) as source, live_rows(parse_url(urls[1])) as destination:
        read = []

        class Counted(ServerSide):
            def each(self, take, buckets, among):
                super().each(lambda texts, places: (read.extend(texts), take(texts, places)), buckets, among)

        sides = [Counted(rows, "public", "t") for rows in (source, destination)]
        (changes,) = row_differences(*sides, rows=30_000, key_of=lambda text: (text.split(b",")[0],))
    assert (len(changes.new), len(changes.gone), changes.changed) == (10, 10, 10)
    assert 20 <= len(read) < 1000


def test_rows_that_differ_are_repaired_and_nothing_else_happens(database):
    before = [database.fetch(query) for query in (database.triggers, "SELECT * FROM noted")]
    database.run(*database.change)
    expected = {
        "items": (1, 2, 1, 0),
        "keyless": (1, 0, 3, 0),
        "swapped": (0, 50, 0, 0),
        "parents": (3, 0, 0, 0),
        "children": (3, 0, 0, 0),
    } | ({"measured_1": (1, 0, 1, 0)} if type(database) is Postgres else {})
    changed = database.fetch("SELECT * FROM swapped ORDER BY 1")
    assert counts(repair(database, "--dry-run", code=6)) == expected
    assert database.fetch("SELECT * FROM swapped ORDER BY 1") == changed
    compared = repair(database, code=0)
    assert counts(compared) == expected
    assert compared["findings"] == []
    assert [database.fetch(query) for query in (database.triggers, "SELECT * FROM noted")] == before
    assert repair(database, code=0)["repaired"] == []


@pytest.mark.parametrize(
    "database",
    [Postgres, *(pytest.param(engine, marks=pytest.mark.torture) for engine in (Mariadb, Sqlite))],
    indirect=True,
    ids=["postgres", "mariadb", "sqlite"],
)
def test_refused_rows_wait_for_those_removed_later_and_the_rest_is_named(database, monkeypatch, tmp_path):
    monkeypatch.setattr("migrate.repair.row_differences.PARTITION_BYTES", 100)
    (tmp_path / "source").mkdir()
    source = type(database)(database.server, tmp_path / "source")
    source.run("INSERT INTO children VALUES (21, 1), (22, 2)")
    database.run(
        "UPDATE swapped SET place = 51 - place + 100",
        "UPDATE swapped SET place = place - 100",
        "CREATE UNIQUE INDEX only_child ON children (parent)",
    )
    compared = repair(database, "--from", f"app={source.url}", code=6)
    assert counts(compared) == {"swapped": (0, 50, 0, 0), "children": (2, 0, 0, 2)}
    assert database.fetch("SELECT * FROM swapped ORDER BY 1") == source.fetch(
        "SELECT * FROM swapped ORDER BY 1"
    )
    (finding,) = compared["findings"]
    assert "2 missing rows" in finding["what"]


def test_what_was_repaired_is_counted_row_by_row():
    assert TableRepair("t", inserted=3, updated=1).words == "3 missing rows, 1 changed row"
    refused = TableRepair("t", deleted=1, refused=2, reason="why")
    assert refused.words == "1 extra row; the destination refuses 2 rows: why"
    assert TableRepair("t", reason="why").words == "not repaired: why"


@pytest.mark.parametrize("database", [Sqlite], indirect=True, ids=["sqlite"])
def test_a_destination_that_delta_passes_brought_further_is_not_put_back(database):
    database.run(*database.change)
    location = open_location(str(database.location))
    write_delta(location, DeltaRecord("app", passes=1))
    before = database.fetch("SELECT * FROM items ORDER BY 1")
    ended = call("verify", database.location, "--against", f"app={database.url}", "--repair")
    assert (ended.code, "a repair would undo them" in ended.err) == (2, True)
    assert database.fetch("SELECT * FROM items ORDER BY 1") == before
    write_delta(location, DeltaRecord("app", reason="no log"))
    assert counts(repair(database, code=0))["parents"] == (3, 0, 0, 0)


def test_long_rows_and_keys_are_repaired_and_a_row_that_is_too_long_is_named(mariadb, other_mariadb):
    """The server hung up, which passed for one that cannot be reached: delta passes tried that again for ever."""
    sides = [mariadb.database(), other_mariadb.database()]
    for url, changed in zip(sides, (0, 1), strict=True):
        mysql.run_sql(
            url,
            "CREATE TABLE keyless (a INT, t LONGTEXT); CREATE TABLE keyed (k VARCHAR(700) PRIMARY KEY, v INT);"
            f"INSERT INTO keyless VALUES (1, REPEAT('x', 900000 + {changed}));"
            f"INSERT INTO keyless VALUES (2, REPEAT('y', 2000000 * (1 - {changed})));"
            f"INSERT INTO keyed SELECT CONCAT(REPEAT('é', 690), seq), {changed} FROM seq_1_to_900",
        )
    with global_settings(sides[1], max_allowed_packet=2**20):
        repaired = repair_from_source(*map(Endpoint, sides)).tables
    keyed, keyless = repaired
    assert keyed.words == "900 changed rows"
    assert keyless.words.startswith(
        "2 missing rows, 2 extra rows; the destination refuses 1 row: `keyless`: a row takes"
    )
    assert "SET GLOBAL max_allowed_packet" in keyless.reason
    assert mysql.fetch(sides[1], "SELECT a, LENGTH(t) FROM keyless") == [(1, 900000)]
    assert mysql.fetch(sides[1], "SELECT COUNT(*), SUM(v) FROM keyed") == [(900, 0)]


@pytest.mark.parametrize("database", [Sqlite], indirect=True, ids=["sqlite"])
def test_two_repairs_do_not_write_to_one_file(database, monkeypatch):
    monkeypatch.setattr(row_repair, "LOCK_SECONDS", 0)
    database.run(*database.change)
    with row_repair.open_repair(database.url, {}):
        ended = call("verify", database.location, "--against", f"app={database.url}", "--repair")
    assert (ended.code, "another repair or delta pass works on" in ended.err) == (5, True)
    assert counts(repair(database, code=0))["parents"] == (3, 0, 0, 0)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--dry-run"], "go with --repair"),
        (["--from", "app=sqlite:///x"], "go with --repair"),
        (["--repair"], "--against URL"),
        (["--repair", "--against", "app=sqlite:///x", "--from", "b=sqlite:///x"], "--against b=URL"),
    ],
)
def test_options_that_do_not_go_together_are_named(tmp_path, words, reported):
    ended = call("verify", tmp_path, *words)
    assert (ended.code, reported in ended.err) == (2, True), ended

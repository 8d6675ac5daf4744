"""Export, then restore: the destination is the source."""

from collections import Counter

import pyarrow.parquet as pq
import pytest

from exporters.mysql.connection import parse_url
from migrate.bundle import layout
from migrate.errors import NotEmptyError
from migrate.runtime.progress import Silent
from tests.exporters.mysql.databases import checksums, definitions, fetch, live_tables, run_sql
from tests.parquet import check_parquet
from tests.tools.bundles import differences, restore_from


class Stages(Silent):
    """What each stage was to have, and has had, in bytes."""

    def __init__(self) -> None:
        self.total: dict[str, int] = {}
        self.done: Counter[str] = Counter()

    def begin(self, what: str, *, items: int, size_bytes: int, of: object = None) -> None:
        del items, of
        self.total[what] = size_bytes

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        del items
        self.done[list(self.total)[-1]] += size_bytes


@pytest.fixture(scope="module")
def stages() -> Stages:
    return Stages()


@pytest.fixture(scope="module")
def restored(my_torture_bundle, other_mariadb, stages) -> str:
    url = other_mariadb.database(options="CHARACTER SET latin1")
    outcome = restore_from(my_torture_bundle, "app", url, workers=2, progress=stages)
    assert outcome.findings == ()
    return url


@pytest.mark.usefixtures("restored")
def test_progress_ends_at_its_total(my_torture_bundle, stages):
    parts = sum(len(row.details["parts"]) for row in my_torture_bundle.catalog())
    for stage in ("restore app", "compare app"):
        assert 0 <= stages.total[stage] - stages.done[stage] <= parts, stage


def table(reader, name):
    return next(row for row in reader.catalog() if row.name == name)


def column(reader, table_name, column_name):
    row = table(reader, table_name)
    part = reader.open(layout.source_file("app", row.details["parts"][0]["name"]))
    return pq.ParquetFile(part).read([column_name]).column(0)[:4].to_pylist()


def test_parquet_renders_to_the_very_text_of_the_source(my_torture_bundle):
    tables = [row for row in my_torture_bundle.catalog() if row.kind == "table"]
    assert len(tables) == 15
    assert check_parquet(my_torture_bundle, tables) == []


def test_definitions_are_equal_as_show_create_prints_them(my_torture, restored):
    assert definitions(restored) == definitions(my_torture)


def test_tables_are_equal_as_the_servers_checksum_sees_them(my_torture, restored):
    wanted = checksums(my_torture)
    assert len(wanted) == 15
    assert checksums(restored) == wanted


def test_live_digests_are_equal(my_torture, restored):
    assert live_tables(parse_url(restored)) == live_tables(parse_url(my_torture))


def test_views_functions_triggers_and_sequences_work_in_the_destination(my_torture_bundle, other_mariadb):
    restored = other_mariadb.database()  # its own: others compare the rows of the one that they share
    restore_from(my_torture_bundle, "app", restored, workers=2)
    assert fetch(restored, "SELECT id, thrice FROM a_second ORDER BY id") == [(5, 15), (9, 27)]
    assert fetch(restored, "SELECT count(*) FROM audit") == [(0,)]
    run_sql(restored, "INSERT INTO parent (name) VALUES ('new'); CALL `log it`('x')")
    assert [row[0] for row in fetch(restored, "SELECT what FROM audit ORDER BY id")] == [
        "onenew",
        "another",
        "p:x",
    ]
    assert fetch(restored, "SELECT MAX(id) FROM parent") == [(10,)]


def test_values_that_a_type_cannot_hold_keep_their_text_beside_it(my_torture_bundle):
    assert column(my_torture_bundle, "moments", "d$exact")[:3] == [None, "0000-00-00", "2020-00-00"]
    assert column(my_torture_bundle, "moments", "t$exact")[2] == "838:59:59"
    assert column(my_torture_bundle, "moments", "dt3")[1:3] == [None, None]
    assert column(my_torture_bundle, "numbers", "bigu")[0] == 2**64 - 1
    assert column(my_torture_bundle, "numbers", "f")[0] == pytest.approx(0.1, rel=1e-7)
    assert "dbl" not in table(my_torture_bundle, "numbers").details["exact"]


def test_a_second_restore_finds_everything_there(my_torture_bundle, other_mariadb):
    url = other_mariadb.database()
    first = restore_from(my_torture_bundle, "app", url)
    again = restore_from(my_torture_bundle, "app", url)
    assert first.findings == again.findings == ()
    assert again.size_bytes == 0
    assert "already" in again.routine[0]
    assert fetch(url, "SHOW TABLES LIKE 'moveout%'") == []


def test_a_database_that_holds_something_else_is_not_touched(my_torture_bundle, other_mariadb):
    url = other_mariadb.database()
    run_sql(url, "CREATE TABLE mine (x INT)")
    with pytest.raises(NotEmptyError, match="mine"):
        restore_from(my_torture_bundle, "app", url)
    assert fetch(url, "SHOW TABLES") == [("mine",)]


def test_merge_keeps_what_was_there_and_refuses_a_name_that_is_in_both(my_torture_bundle, other_mariadb):
    url = other_mariadb.database()
    run_sql(url, "CREATE TABLE mine (x INT); CREATE TABLE parent (x INT)")
    with pytest.raises(NotEmptyError, match="parent"):
        restore_from(my_torture_bundle, "app", url, merge=True)
    run_sql(url, "DROP TABLE parent")
    outcome = restore_from(my_torture_bundle, "app", url, merge=True)
    assert outcome.findings == ()
    assert ("mine",) in fetch(url, "SHOW TABLES")


def test_compare_names_changed_missing_and_added_tables(my_exported):
    url, reader = my_exported(
        "CREATE TABLE a (x INT); INSERT INTO a VALUES (1); CREATE TABLE b (x INT); CREATE TABLE c (x INT);"
        "CREATE TABLE e (x INT, y INT); INSERT INTO e VALUES (1, 2)"
    )
    run_sql(url, "ALTER TABLE e CHANGE x z INT, CHANGE y x INT; ALTER TABLE e CHANGE z y INT")
    run_sql(url, "UPDATE a SET x = 2; DROP TABLE b; INSERT INTO c VALUES (1); CREATE TABLE d (x INT)")
    findings = differences(reader, url)
    assert {finding.key: finding.what for finding in findings} == {
        "`a`": (
            "has other rows (their digest differs): 1 only in the bundle, 1 only in the database (it has no key)"
        ),
        "`b`": "is missing in the database",
        "`c`": "has another number of rows: 1 only in the database",
        "`d`": "is in the database, not in the bundle",
        "`e`": "has columns of other names",
    }


def test_what_is_weaker_or_left_out_stands_in_the_ledger(my_torture_bundle):
    losses = {(loss.item, loss.property) for _, loss in my_torture_bundle.losses()}
    assert ("`old_engine`", "consistency") in losses
    assert ("accounts", "password") in losses


def test_no_password_is_in_the_bundles_grants(my_torture_bundle, mariadb):
    file = next(f for f in my_torture_bundle.source_files("app", "schema/") if f.key.endswith("grants.sql"))
    grants = my_torture_bundle.read_checked(file).decode()
    assert "GRANT ALL PRIVILEGES ON *.* TO `moveout`@`127.0.0.1`" in grants
    assert "PASSWORD" not in grants
    assert "IDENTIFIED" not in grants

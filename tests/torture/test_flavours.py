"""MySQL itself: to MySQL, to MariaDB, and from MariaDB. What the other flavour has not is named."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from exporters.mysql.connect import parse_url
from exporters.mysql.live import live_tables
from migrate.progress import Silent
from migrate.restore.mysql.database import restore_database
from migrate.store import open_place
from migrate.verify import Level, verify
from tests.mysql.databases import checksums, definitions, export_database, fetch, read_bundle, run_sql

pytestmark = pytest.mark.torture

OF_MYSQL = Path(__file__).with_name("mysql.sql")
OF_MARIADB = Path(__file__).parents[1] / "mysql/torture.sql"
WHAT = "SELECT what FROM audit ORDER BY id"


@pytest.fixture(scope="module")
def source(mysql) -> str:
    url = mysql.database()
    run_sql(url, OF_MYSQL.read_text())
    return url


def exported(url: str, place: Path) -> Path:
    outcome = export_database(url, place)
    assert outcome.complete, outcome.sources
    return place


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory) -> Path:
    return exported(source, tmp_path_factory.mktemp("mysql") / "bundle")


def restored(place: Path, url: str, kept: Path) -> set[tuple[str, str]]:
    """Restore everything; return what the ledger says."""
    reader, account = read_bundle(place), open_place(str(kept))
    outcome = restore_database(reader, "app", url, workers=2, progress=Silent(), account=account)
    assert (outcome.findings, outcome.left_out) == ((), ())
    losses = pq.read_table(kept / "app/losses.parquet").to_pylist() if outcome.account else []
    return {(row["item"], row["property"]) for row in losses}


def ended_alike(found: list[dict]) -> list[dict]:
    """Of several statements sent at once MySQL keeps the semicolon behind a routine."""
    return [one | {"sql": one.get("sql", "").rstrip(";")} for one in found]


def programs_work(url: str) -> None:
    run_sql(url, "INSERT INTO parent (name) VALUES ('new'); CALL `log it`('x')")
    assert [row[0] for row in fetch(url, WHAT)] == ["onenew", "another", "p:x"]


def test_mysql_comes_back_on_mysql(source, bundle, other_mysql, tmp_path):
    target = other_mysql.database(options="CHARACTER SET latin1")
    assert restored(bundle, target, tmp_path) == set()
    assert ended_alike(definitions(target)) == ended_alike(definitions(source))
    assert checksums(target) == checksums(source)
    assert read_bundle(bundle).catalog()[0].point["consistency"] == "global read lock"
    assert verify(open_place(str(bundle)), Level.FULL, workers=2, progress=Silent()).findings == []
    programs_work(target)


def test_mysql_comes_to_mariadb(source, bundle, mariadb, tmp_path):
    target = mariadb.database(options="CHARACTER SET latin1")
    losses = restored(bundle, target, tmp_path)
    assert live_tables(parse_url(target)) == live_tables(parse_url(source))
    assert losses >= {
        ("table `keyed`", "key"),
        ("table `keyed`", "constraint"),
        ("table `shapes`", "SRID"),
        ("table `texts`", "type json"),
        ("table `texts`", "collation utf8mb4_0900_ai_ci"),
    }
    assert fetch(target, "SELECT id, thrice FROM seen ORDER BY id") == [(5, 15), (9, 27)]
    programs_work(target)


def test_mariadb_comes_to_mysql(mariadb, mysql, tmp_path):
    url, target = mariadb.database(), mysql.database()
    run_sql(url, OF_MARIADB.read_text())
    # no TIME of MySQL is so far from zero: the comparison at the end would say so
    run_sql(url, "UPDATE moments SET t6 = '-838:59:59' WHERE t6 < '-838:59:59'")
    place = exported(url, tmp_path / "bundle")
    losses = restored(place, target, tmp_path / "kept")
    assert live_tables(parse_url(target)) == live_tables(parse_url(url))
    assert ("sequence `tickets`", "definition") in losses
    programs_work(target)

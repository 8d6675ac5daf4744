"""Repairs of random differences over all kinds of keys, and repairs that are killed."""

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import call
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres.databases import export_database, fetch, run_sql

pytestmark = pytest.mark.torture

SERIES = "generate_series(1, 400) n"
KEYS = {
    "int": "n",
    "text": "CASE n % 2 WHEN 0 THEN upper(md5(n::text)) ELSE 'é ' || md5(n::text) END",
    "uuid": "md5(n::text)::uuid",
    "numeric": "n / 7.0",
    "timestamptz": "timestamptz '2024-03-31' + n * interval '17 minutes'",
    "bytea": "decode(md5(n::text), 'hex')",
    "date": "date '2024-01-01' + n",
    "bool": "",
}
VALUES = "CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE E'a,\\n\"b\\\\' || n % {0} END"


def make(collation):
    for kind, key in KEYS.items():
        name = f"t_{kind}"
        if not key:  # no key at all, and many equal rows
            yield f"CREATE TABLE {name} (k bool, v text)"
            yield f"INSERT INTO {name} SELECT n % 3 = 0, {VALUES.format(8)} FROM {SERIES}"
            continue
        collated = f' COLLATE "{collation}"' if kind == "text" else ""
        yield f"CREATE TABLE {name} (k {kind}{collated}, part int, v text, PRIMARY KEY (k, part))"
        yield f"INSERT INTO {name} SELECT {key}, n % 2, {VALUES.format(10**6)} FROM {SERIES}"


def differ(seed):
    """Statements that change some rows of each table, remove some and add some."""
    choice = random.Random(seed)
    for kind in KEYS:
        one, other = choice.randrange(2, 60), choice.randrange(2, 60)
        yield f"UPDATE t_{kind} SET v = v || '!' WHERE ctid IN (SELECT ctid FROM t_{kind} OFFSET {one} LIMIT {other})"
        yield f"UPDATE t_{kind} SET v = NULL WHERE md5(k::text) < '{choice.randrange(16):x}'"
        yield f"DELETE FROM t_{kind} WHERE right(md5(k::text || coalesce(v, '-')), 1) = '{choice.randrange(16):x}'"
        if kind == "bool":
            yield f"INSERT INTO t_bool SELECT * FROM t_bool LIMIT {one}"
        elif kind in {"int", "numeric"}:
            yield f"INSERT INTO t_{kind} SELECT -k, part, 'more' FROM t_{kind} WHERE k > 0 LIMIT {other}"


@pytest.mark.parametrize("seed", range(10))
def test_random_differences_are_repaired_from_the_bundle_and_from_the_source(postgres, tmp_path, seed):
    source, destination = postgres.database(), postgres.database()
    run_sql(source, "; ".join(make("C")))
    run_sql(destination, "; ".join(make("und-x-icu")))
    assert export_database(source, tmp_path / "bundle").complete
    ways: tuple[list[str], list[str]] = ([], ["--from", f"app={source}"])
    for way, number in zip(ways, (seed, seed + 1000), strict=True):
        run_sql(destination, "; ".join(differ(number)))
        words = ["verify", tmp_path / "bundle", "--against", f"app={destination}"]
        assert call(*words).code == 6
        repaired = call(*words, "--repair", *way)
        assert repaired.code == 0, repaired
        for kind in KEYS:
            query = f'SELECT * FROM t_{kind} ORDER BY t_{kind}::text COLLATE "C"'
            assert fetch(destination, query) == fetch(source, query)


SMALL_PARTITIONS = """
import migrate.repair.row_differences as differences
from migrate.cli import main
differences.PARTITION_BYTES = 2**17
main()
"""


def test_a_repair_that_is_killed_is_gone_on_with_and_triggers_come_back(mariadb, tmp_path):
    url = mariadb.database()
    mysql.run_sql(
        url,
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(300));"
        "INSERT INTO t SELECT seq, REPEAT(MD5(seq), 8) FROM seq_1_to_30000;"
        "CREATE TABLE noted (id int);"
        "CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW INSERT INTO noted VALUES (NEW.id)",
    )
    assert mysql.export_database(url, tmp_path / "bundle").complete
    mysql.run_sql(url, "UPDATE t SET v = UPPER(v) WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0")
    words = ["verify", tmp_path / "bundle", "--against", f"app={url}", "--repair", "--quiet"]
    query = "SELECT count(*) FROM t WHERE v = BINARY LOWER(v)"
    ((equal,),) = mysql.fetch(url, query)
    kills = 0
    while kills < 3:
        program = [sys.executable, "-c", SMALL_PARTITIONS, *words]
        with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as repair:
            while repair.poll() is None and mysql.fetch(url, query) == [(equal,)]:
                time.sleep(0.02)
            kills += repair.poll() is None
            repair.send_signal(signal.SIGKILL)
        ((equal,),) = mysql.fetch(url, query)
        assert equal < 30000
    repaired = call(*words)
    assert repaired.code == 0, repaired
    assert mysql.fetch(url, query) == [(30000,)]
    assert mysql.fetch(url, "SELECT count(*) FROM noted") == [(0,)]
    assert mysql.fetch(url, "SHOW TRIGGERS")[0][0] == "note"

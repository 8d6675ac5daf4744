"""Snapshots while others write, weaker permissions, resumed runs, large rows, and errors with their exit codes."""

import os
import secrets
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pymysql
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exporters.engine import Texts
from exporters.errors import (
    SourceGoneError,
    SourceNotAllowedError,
    SourceUnreachableError,
    SourceUsageError,
)
from exporters.mysql import chunk_plan as plans
from exporters.mysql import consistent_snapshot
from exporters.mysql.catalog import read_tables
from exporters.mysql.connection import _from_option_file, connect, parse_url
from exporters.mysql.errors import DRIVER_ERRORS, as_source_errors
from exporters.mysql.live_rows import live_rows
from exporters.mysql.rows.text_codec import double_text
from exporters.mysql.sessions import snapshot_locks
from exporters.mysql.source import MysqlExporter
from exporters.sql import chunk_plan
from migrate.bundle import layout
from migrate.runtime.progress import Silent
from scripts.process import free_port
from tests.export.victims import Counting, run
from tests.exporters.mysql.databases import export_database, fetch, live_tables, open_database, run_sql
from tests.exporters.postgres.databases import NoBuckets
from tests.tools.bundles import differences, read_bundle, restore_from
from tests.tools.waiting import eventually


def values(reader, table_name, column_name):
    row = next(row for row in reader.catalog() if row.name == table_name)
    parts = [reader.open(layout.source_file("app", part["name"])) for part in row.details["parts"]]
    return [
        value for part in parts for value in pq.ParquetFile(part).read([column_name]).column(0).to_pylist()
    ]


def point(reader):
    return reader.catalog()[0].position


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(plans, "CHUNK_BYTES", 40_000)


def make_accounts(mariadb, accounts: int) -> str:
    url = mariadb.database()
    run_sql(
        url,
        "CREATE TABLE summary (id INT PRIMARY KEY, amount DECIMAL(12,2), note VARCHAR(200)); ANALYZE TABLE summary",
    )
    rows = ",".join(f"({i}, 100, REPEAT('n', 150))" for i in range(accounts))
    run_sql(
        url,
        f"INSERT INTO summary VALUES {rows}; ANALYZE TABLE summary;"
        " CREATE TABLE log (id INT PRIMARY KEY AUTO_INCREMENT)",
    )
    return url


def transfer_money(url: str, seed: int, stop: threading.Event) -> None:
    """Move one unit from summary to summary until told to stop; a deadlock undoes its transaction."""
    n = seed
    with open_database(url) as connection, connection.cursor() as cursor:
        while not stop.wait(0.01):
            n = (n * 7919 + 13) % 1_999_993
            a, b = sorted((n % 2000, (n // 2000) % 2000))
            try:
                cursor.execute(
                    f"BEGIN; UPDATE summary SET amount = amount - 1 WHERE id = {a};"
                    f" UPDATE summary SET amount = amount + 1 WHERE id = {b}; INSERT INTO log VALUES (); COMMIT"
                )
                while cursor.nextset():
                    pass
            except pymysql.err.OperationalError as exc:
                if exc.args[0] not in {1213, 1205}:
                    raise


def test_sums_are_exact_while_others_transfer_money(mariadb, tmp_path, small_chunks):
    url = make_accounts(mariadb, 2000)
    stop = threading.Event()
    writers = [threading.Thread(target=transfer_money, args=(url, seed, stop)) for seed in range(1, 9)]
    for writer in writers:
        writer.start()
    try:
        outcomes = [export_database(url, tmp_path / f"bundle-{n}") for n in range(3)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert all(outcome.complete for outcome in outcomes), outcomes
    for n in range(3):
        reader = read_bundle(tmp_path / f"bundle-{n}")
        row = next(row for row in reader.catalog() if row.name == "summary")
        assert len(row.details["parts"]) > 3
        assert sum(values(reader, "summary", "amount")) == Decimal(200_000)


def account_of(mariadb, url, *grants) -> str:
    """An account with these privileges; its password is everybody's here."""
    user, database = f"u{secrets.token_hex(4)}", url.rpartition("/")[2]
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY '{mariadb.password}'")
        for grant in grants:
            cursor.execute(f"GRANT {grant.format(database=database)} TO {user}@'127.0.0.1'")
    return mariadb.url_of(database, user)


@pytest.mark.parametrize(
    ("grants", "consistency"),
    [
        (["SELECT, SHOW VIEW, TRIGGER ON {database}.*", "RELOAD ON *.*"], "global read lock"),
        (["SELECT, SHOW VIEW, TRIGGER, LOCK TABLES ON {database}.*"], "table locks"),
        (["SELECT ON {database}.*"], "one session"),
    ],
)
def test_the_strongest_snapshot_that_is_permitted_is_taken_and_recorded(
    mariadb, tmp_path, grants, consistency
):
    url = account_of(mariadb, make_accounts(mariadb, 100), *grants)
    outcome = export_database(url, tmp_path / "bundle")
    reader = read_bundle(tmp_path / "bundle")
    assert outcome.complete
    assert consistency in str(point(reader))
    lost = {loss.property for _, loss in reader.losses()}
    assert ("position" in lost) == (consistency != "global read lock")


@pytest.mark.parametrize(
    "rights", ["RELOAD ON *.*", pytest.param("LOCK TABLES ON {database}.*", marks=pytest.mark.torture)]
)
def test_the_server_drops_a_lock_whose_holder_says_nothing_and_the_snapshot_fails(
    mariadb, monkeypatch, rights
):
    """As where the machine of moveout vanishes between the lock and the last session's beginning."""
    monkeypatch.setattr(snapshot_locks, "IDLE_SECONDS", 3)
    url = mariadb.database()
    run_sql(url, "CREATE TABLE t (id INT)")
    address = parse_url(account_of(mariadb, url, "SELECT ON {database}.*", rights))
    with closing(connect(address)) as connection:
        tables = read_tables(connection)
    stack, begun = ExitStack(), time.monotonic()
    lock = stack.enter_context(snapshot_locks.snapshot_lock(address, tables))
    assert lock.name != snapshot_locks.ONE_SESSION
    run_sql(url, "INSERT INTO t VALUES (1)")
    assert time.monotonic() - begun > 2.5
    with pytest.raises(DRIVER_ERRORS):
        stack.close()


def waits_for_a_row(url):
    """Whether a statement waits for a row. The server answers from a copy until nobody has asked for 0.1 s."""
    time.sleep(0.2)
    return fetch(url, "SELECT 1 FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'")


@pytest.mark.parametrize("kind", ["mariadb", pytest.param("mysql", marks=pytest.mark.torture)])
def test_a_lock_lets_those_pass_who_wait_behind_it_and_for_whom_it_waits(kind, request):
    """A statement runs that waits for a row; who has changed the row goes on only once the lock no longer waits."""
    url = request.getfixturevalue(kind).database()
    run_sql(url, "CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 0)")

    def add_a_row_behind_the_lock(writer):
        eventually(
            lambda: fetch(url, "SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE 'FLUSH%'")
        )
        writer.query("INSERT INTO t VALUES (2, 0)")
        writer.commit()

    with closing(open_database(url)) as writer, ThreadPoolExecutor() as pool:
        writer.begin()
        writer.query("UPDATE t SET v = 1 WHERE id = 1")
        running = pool.submit(run_sql, url, "UPDATE t SET v = 2 WHERE id = 1")
        eventually(lambda: waits_for_a_row(url))
        behind = pool.submit(add_a_row_behind_the_lock, writer)
        with snapshot_locks.snapshot_lock(parse_url(url), ()) as lock:
            assert (lock.name, lock.refusals) == (snapshot_locks.GLOBAL_LOCK, [])
        running.result()
        behind.result()
    assert fetch(url, "SELECT id, v FROM t ORDER BY id") == [(1, 2), (2, 0)]


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE t ADD b INT DEFAULT 7; UPDATE t SET b = id", "RENAME TABLE t TO was, u TO t, was TO u"],
    ids=["columns", "tables"],
)
def test_tables_that_are_altered_before_the_snapshot_begins_are_read_as_they_are_then(
    mariadb, tmp_path, change, monkeypatch
):
    """The lock waits for statements that are running, and so for an ALTER TABLE to end."""
    url, changes = mariadb.database(), [change]
    run_sql(url, "CREATE TABLE t (id INT PRIMARY KEY); CREATE TABLE u (id BIGINT PRIMARY KEY, v TEXT)")
    run_sql(url, "INSERT INTO t VALUES (1), (2); INSERT INTO u VALUES (3, 'v')")

    def lock(address, tables):
        while changes:
            run_sql(url, changes.pop())
        return snapshot_locks.snapshot_lock(address, tables)

    monkeypatch.setattr(consistent_snapshot, "snapshot_lock", lock)
    assert export_database(url, tmp_path / "bundle").complete
    assert not changes
    assert differences(read_bundle(tmp_path / "bundle"), url) == []


def renaming(url: str) -> threading.Thread:
    """Begin a RENAME of table ``t``, and return once it waits."""

    def rename() -> None:
        with suppress(pymysql.err.OperationalError):  # it waits for no longer
            run_sql(url, "SET SESSION lock_wait_timeout = 10; RENAME TABLE t TO renamed")

    thread = threading.Thread(target=rename)
    thread.start()
    waiting = (
        "SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE 'RENAME%' AND STATE LIKE 'Waiting for%'"
    )
    eventually(lambda: fetch(url, f"{waiting} AND DB = DATABASE()"))
    return thread


def test_a_definition_that_waits_for_the_export_does_not_keep_it_from_its_rows(mariadb):
    """A server serves locks in their order: who comes later to a table waits behind it."""
    url = mariadb.database()
    run_sql(url, "CREATE TABLE first (id INT); CREATE TABLE t (id INT); INSERT INTO t VALUES (1)")
    with live_rows(parse_url(url), readers=2) as rows:
        thread = renaming(url)
        texts: list[Texts] = []
        rows.each("", "t", texts.append)
        assert thread.is_alive()
    thread.join()
    assert [b"".join(row) for row in texts] == [b"\x011"]


def test_a_definition_that_waits_while_the_snapshot_begins_is_made_first(mariadb, monkeypatch):
    url, threads = mariadb.database(), []
    run_sql(url, "CREATE TABLE t (id INT)")

    def touch(connection, tables):
        unreadable = snapshot_locks.unreadable_tables(connection, tables)
        if not threads:
            threads.append(renaming(url))
        return unreadable

    monkeypatch.setattr(consistent_snapshot, "unreadable_tables", touch)
    with live_rows(parse_url(url), readers=2) as rows:
        assert [*rows.tables()] == [("", "renamed")]
    threads[0].join()


@pytest.mark.parametrize(
    ("change", "is_read"),
    [("CREATE TABLE made_{} (id INT)", True), ("ALTER TABLE t ADD c{} INT", False)],
    ids=["made", "altered"],
)
def test_tables_that_are_made_all_the_time_keep_no_snapshot_from_beginning(
    mariadb, tmp_path, change, is_read, monkeypatch
):
    url, numbers = mariadb.database(), iter(range(99))
    run_sql(url, "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)")

    def lock(address, tables):
        run_sql(url, change.format(next(numbers)))
        return snapshot_locks.snapshot_lock(address, tables)

    monkeypatch.setattr(consistent_snapshot, "snapshot_lock", lock)
    if is_read:
        assert export_database(url, tmp_path / "bundle").complete
    else:
        with pytest.raises(SourceUnreachableError, match="altered faster"):
            export_database(url, tmp_path / "bundle")


def test_a_table_that_may_not_be_read_is_a_gap(mariadb, tmp_path):
    url = make_accounts(mariadb, 10)
    limited = account_of(mariadb, url, "SELECT (id) ON {database}.summary", "SELECT ON {database}.log")
    outcome = export_database(limited, tmp_path / "bundle")
    assert not outcome.complete


def test_rows_that_are_longer_than_the_server_lets_a_line_be(mariadb, other_mariadb, tmp_path):
    """More than max_allowed_packet once they are hexadecimal, or have their quotes doubled."""
    url = mariadb.database()
    run_sql(
        url,
        "CREATE TABLE blobs (id INT PRIMARY KEY, b LONGBLOB); CREATE TABLE texts (id INT PRIMARY KEY, t LONGTEXT)",
    )
    run_sql(url, "INSERT INTO blobs VALUES (1, REPEAT(X'00FF', 4400000)), (2, ''), (3, NULL)")
    run_sql(url, "INSERT INTO texts VALUES (1, REPEAT('\"x', 6000000)), (2, ''), (3, NULL)")
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert values(reader, "blobs", "b") == [b"\0\xff" * 4_400_000, b"", None]
    assert values(reader, "texts", "t") == ['"x' * 6_000_000, "", None]
    destination = other_mariadb.database()
    assert restore_from(reader, "app", destination).findings == ()
    assert fetch(destination, "SELECT SUM(LENGTH(b)) FROM blobs") == [(8_800_000,)]
    # what has its quotes doubled cannot be written back under the destination's limit: it says so
    run_sql(url, "INSERT INTO texts VALUES (4, REPEAT('''', 9000000))")
    assert export_database(url, tmp_path / "again").complete
    reader = read_bundle(tmp_path / "again")
    (left_out,) = restore_from(reader, "app", other_mariadb.database()).left_out
    assert left_out.startswith("rows of `texts` ")
    assert "`id` = 4: a row takes 18," in left_out


def die(url: str, location: str, fatal: int) -> None:
    """Export until the ``fatal``-th write to the location, with small chunks."""
    from migrate.export.run import export
    from migrate.storage.registry import open_location

    plans.CHUNK_BYTES = 40_000
    source = MysqlExporter().open("app", url, NoBuckets())
    export([source], Counting(open_location(location), fatal), workers=2, progress=Silent())


@pytest.mark.parametrize("fatal", [17, *(pytest.param(n, marks=pytest.mark.torture) for n in (4, 9, 30))])
def test_a_killed_export_goes_on_and_changed_chunks_are_done_again(mariadb, tmp_path, small_chunks, fatal):
    url = make_accounts(mariadb, 2000)
    victim = run(die, url, str(tmp_path / "bundle"), fatal)
    victim.join()
    assert victim.exitcode == -9
    is_done = (
        tmp_path / "bundle" / layout.TAG_MANIFEST
    ).exists()  # the export had ended: it is as it was then
    before = live_tables(parse_url(url))["", "summary"]
    run_sql(url, "UPDATE summary SET amount = 7 WHERE id IN (0, 1999); DELETE FROM summary WHERE id = 1000")
    outcome = export_database(url, tmp_path / "bundle")
    assert outcome.complete, outcome
    reader = read_bundle(tmp_path / "bundle")
    expected = before if is_done else live_tables(parse_url(url))["", "summary"]
    row = next(row for row in reader.catalog() if row.name == "summary")
    assert (row.items, row.digest) == (2000 if is_done else 1999, f"{expected.digest:032x}")


def die_restoring(location: str, url: str, steps: int) -> None:
    """Restore until so many parts were done: a transaction that would have more is not committed."""
    from exporters.mysql.connection import Connection
    from migrate.restore.mysql.rows import load_rows as mysql_rows

    real, count = mysql_rows.mark_done, iter(range(steps))

    def mark(connection: Connection, *names: str) -> None:
        for _ in names:
            if next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
        real(connection, *names)

    mysql_rows.mark_done = mark
    mysql_rows._BATCH_PARTS = 2
    restore_from(read_bundle(Path(location)), "app", url, workers=2)


@pytest.mark.parametrize("steps", [4, *(pytest.param(n, marks=pytest.mark.torture) for n in (0, 1, 9))])
def test_a_killed_restore_goes_on_where_it_was(mariadb, other_mariadb, tmp_path, small_chunks, steps):
    url = make_accounts(mariadb, 2000)
    assert export_database(url, tmp_path / "bundle").complete
    destination = other_mariadb.database()
    victim = run(die_restoring, str(tmp_path / "bundle"), destination, steps)
    victim.join()
    assert victim.exitcode == -9
    outcome = restore_from(read_bundle(tmp_path / "bundle"), "app", destination, workers=2)
    assert outcome.findings == ()
    assert live_tables(parse_url(destination)) == live_tables(parse_url(url))


def test_a_database_that_is_mostly_one_table_has_a_chunk_for_each_worker(mariadb, tmp_path, monkeypatch):
    monkeypatch.setattr(chunk_plan, "LEAST_SHARE_BYTES", 40_000)
    url = make_accounts(mariadb, 2000)
    assert export_database(url, tmp_path / "bundle").complete
    row = next(row for row in read_bundle(tmp_path / "bundle").catalog() if row.name == "summary")
    assert (row.items, len(row.details["parts"])) == (2000, 2)


def test_keys_of_characters_and_dates_are_cut_without_losing_a_row(mariadb, tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "CHUNK_BYTES", 5_000)
    url = mariadb.database()
    run_sql(
        url,
        "CREATE TABLE names (k VARCHAR(40) COLLATE utf8mb4_unicode_ci, n INT, filler CHAR(100), PRIMARY KEY (k, n));"
        "INSERT INTO names SELECT CONCAT(CHAR(65 + seq % 58), '''\"ä', seq % 400), seq, 'f' FROM seq_1_to_2000;"
        "CREATE TABLE days (d DATETIME(3) PRIMARY KEY, filler CHAR(100));"
        "INSERT INTO days SELECT TIMESTAMPADD(HOUR, seq, '2020-01-01'), 'f' FROM seq_1_to_2000;"
        "CREATE TABLE hashes (h BINARY(16) PRIMARY KEY, filler CHAR(100));"
        "INSERT INTO hashes SELECT UNHEX(MD5(seq)), 'f' FROM seq_1_to_2000; ANALYZE TABLE names, days, hashes",
    )
    outcome = export_database(url, tmp_path / "bundle")
    assert outcome.complete, outcome
    for row in read_bundle(tmp_path / "bundle").catalog():
        assert row.items == 2000
        assert len(row.details["parts"]) > 5, row.name


def test_keys_of_other_types_are_cut_by_their_own_order_or_not_at_all(mariadb, tmp_path, monkeypatch):
    """An ENUM is in the order of its labels' numbers, and is compared with a string by its letters."""
    monkeypatch.setattr(plans, "CHUNK_BYTES", 5_000)
    url = mariadb.database()
    types = {
        "labels": ("ENUM('z', 'm', 'b', 'a')", "1 + seq % 4"),
        "sets": ("SET('z', 'm', 'b', 'a')", "seq % 16"),
        "uuids": ("UUID", "UUID()"),
        "addresses": ("INET6", "CONCAT('::', HEX(seq * 7919 % 65536))"),
        "moments": ("TIMESTAMP(2)", "FROM_UNIXTIME(seq * 7919 % 100000 + 0.25)"),
        "prices": ("DECIMAL(9,3)", "seq * 7919 % 100000 / 1000 - 50"),
        "words": (
            "VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german1_ci",
            "CONCAT(CHAR(192 + seq % 64 USING latin1), seq)",
        ),
    }
    for name, (sql_type, value) in types.items():
        run_sql(
            url,
            f"CREATE TABLE {name} (k {sql_type}, n INT, filler CHAR(100), PRIMARY KEY (k, n));"
            f"INSERT INTO {name} SELECT {value}, seq, 'f' FROM seq_1_to_500; ANALYZE TABLE {name}",
        )
    outcome = export_database(url, tmp_path / "bundle")
    assert outcome.complete, outcome
    assert {row.items for row in read_bundle(tmp_path / "bundle").catalog()} == {500}


def test_errors_have_their_kinds(mariadb, monkeypatch):
    def open_(url):
        MysqlExporter().open("app", url, NoBuckets())

    with pytest.raises(SourceGoneError, match="no_such"):
        open_(mariadb.url_of("no_such"))
    with pytest.raises(SourceUnreachableError):
        open_(f"mysql://moveout@127.0.0.1:{free_port()}/mysql")
    with pytest.raises(SourceUsageError, match="contains a password"):
        open_("mysql://moveout:secret@127.0.0.1/mysql")
    with pytest.raises(SourceUsageError, match="names a server, and no database"):
        open_("mysql://moveout@127.0.0.1")
    with pytest.raises(SourceUsageError, match="tls"):
        open_("mysql://moveout@127.0.0.1/mysql?tls=yes")
    user = f"late_{secrets.token_hex(4)}"
    run_sql(mariadb.url, f"CREATE USER {user} IDENTIFIED BY 'wrong' PASSWORD EXPIRE")
    monkeypatch.setenv("MYSQL_PWD", "wrong")
    with pytest.raises(SourceNotAllowedError, match="refuses the login"):
        open_(mariadb.url)
    with pytest.raises(SourceNotAllowedError) as expired:
        open_(mariadb.url_of("information_schema", user))
    assert "SET PASSWORD" in expired.value.next_step


@pytest.mark.parametrize(
    "text",
    [
        "[client]\npassword={}\nhost=192.0.2.1\n",
        "!include /etc/my.cnf.d\n[client]\n password = '{}' # mine\n[mysqldump]\npassword=other\n",
        '[client]\npassword=old\nuser\n[client-mariadb]\npassword="{}"\n\xff\n',
    ],
)
def test_the_password_may_stand_in_the_option_file(text, mariadb, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MYSQL_PWD")
    (tmp_path / ".my.cnf").write_text(text.format(mariadb.password), encoding="latin-1")
    MysqlExporter().open("app", mariadb.url, NoBuckets()).close()


def test_a_connection_that_has_ended_is_to_be_opened_again(mariadb):
    """The driver's error for it has no number: it was taken for one of the server's, which stopped a source."""
    session = connect(parse_url(mariadb.url))
    session.close()
    with pytest.raises(SourceUnreachableError, match="the connection has ended"), as_source_errors("app"):
        session.rows("SELECT 1")


@pytest.mark.parametrize(
    ("line", "password"),
    [
        (r"password=a\\b\sc # d", r"a\b c"),
        (r'password="a#b\"  # "d"', "a#b\\"),
        ("password='a'b", "'a'b"),
        ('password="a#b"', "a#b"),
        ("password=", ""),
        ("password", ""),
        ("# password=x", None),
        ("passwords=x", None),
    ],
)
def test_a_line_of_the_option_file_is_read_as_mysql_reads_it(line, password, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".my.cnf").write_text(f"[client]\n{line}\n")
    assert _from_option_file("password") == password


@example(
    [
        1000000000000000.5,
        -1125899906842624.5,
        2251799813685248.5,
        4503599627370495.5,
        1e15,
        1e16,
        999999999999999.9,
        123456789012345.67,
    ]
)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_numbers_are_written_as_the_server_writes_them(mariadb, numbers):
    rows = fetch(
        mariadb.url,
        "SELECT CONCAT_WS(' ', "
        + ", ".join(f"{n!r}*1e0" if "e" in repr(n) else f"{n!r}e0*1e0" for n in numbers)
        + ")",
    )
    assert [double_text(n).removeprefix("-") if n == 0 else double_text(n) for n in numbers] == [
        "0" if word == "-0" else word for word in rows[0][0].split(" ")
    ]


def test_a_spatial_reference_system_that_no_definition_shows_is_a_loss(my_exported):
    _, reader = my_exported("CREATE TABLE t (id INT PRIMARY KEY, p POINT REF_SYSTEM_ID=4326, q POINT)")
    assert [
        (loss.item, loss.reason) for _, loss in reader.losses() if loss.property == "spatial reference system"
    ] == [("`t`.`p`", "its definition does not show it: ALTER TABLE … MODIFY … REF_SYSTEM_ID=4326")]


def test_statistics_of_columns_are_in_the_ledger(my_exported):
    _, reader = my_exported(
        "CREATE TABLE t (id INT PRIMARY KEY, n INT); INSERT INTO t VALUES (1, 2);"
        "ANALYZE TABLE t PERSISTENT FOR COLUMNS (n) INDEXES ()"
    )
    assert [(loss.item, loss.reason) for _, loss in reader.losses() if loss.property == "statistics"] == [
        ("`t`", "of `n`: the destination makes its own, by ANALYZE TABLE")
    ]

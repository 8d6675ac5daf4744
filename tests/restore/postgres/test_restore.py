"""Restore: what comes after the rows, in parts, into what is there already, and after any interruption."""

import functools
import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from exporters.errors import SourceUnreachableError
from exporters.postgres.exporter import PostgresExporter
from exporters.postgres.live_digests import TablesToRead, live_tables
from exporters.postgres.sessions.connection import parse_url
from migrate.bundle.reader import BundleReader
from migrate.errors import NotAllowedError, NotEmptyError, UsageError
from migrate.export.run import export
from migrate.restore.common.selection import RestoreSelection
from migrate.restore.postgres.context import PostgresRestore
from migrate.restore.postgres.definitions import after_rows, post_data_order
from migrate.restore.postgres.definitions import post_data as sql_steps
from migrate.restore.postgres.definitions import pre_data as sql_define
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.export.victims import execute, kill_when
from tests.exporters.postgres.databases import NoBuckets, dump, export_database, fetch, run_sql
from tests.tools.bundles import differences, read_bundle, restore_from

SHOP = """
CREATE SCHEMA shop;
CREATE TYPE shop.state AS ENUM ('open', 'paid');
CREATE TABLE shop.customer (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE shop.orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer int NOT NULL REFERENCES shop.customer,
  state shop.state NOT NULL DEFAULT 'open', amount numeric(9, 2), parent int REFERENCES shop.orders);
CREATE INDEX orders_by_state ON shop.orders (state) WHERE amount > 1;
CREATE TABLE shop.audit (n int, at timestamptz DEFAULT now());
CREATE FUNCTION shop.count_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO shop.audit (n) VALUES (NEW.id); NEW.amount := NEW.amount + 1; RETURN NEW; END $$;
CREATE TABLE shop.event (day date NOT NULL, id int NOT NULL, t text) PARTITION BY RANGE (day);
CREATE TABLE shop.event_2020 PARTITION OF shop.event FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE shop.event_rest PARTITION OF shop.event DEFAULT;
ALTER TABLE shop.event ADD PRIMARY KEY (day, id);
CREATE INDEX event_text ON shop.event (t);
CREATE TABLE shop.note (day date, id int, FOREIGN KEY (day, id) REFERENCES shop.event);
INSERT INTO shop.customer (name) SELECT 'c' || n FROM generate_series(1, 50) n;
INSERT INTO shop.orders (customer, amount) SELECT n, n FROM generate_series(1, 50) n;
UPDATE shop.orders SET parent = 51 - id;
INSERT INTO shop.event SELECT '2020-12-01'::date + n, n, 't' FROM generate_series(1, 60) n;
INSERT INTO shop.note SELECT day, id FROM shop.event;
CREATE TRIGGER up BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.count_up();
CREATE MATERIALIZED VIEW shop.summed AS SELECT sum(amount) AS total FROM shop.orders;
CREATE UNIQUE INDEX ON shop.summed (total);
CREATE VIEW shop.grouped AS SELECT o.*, count(*) AS n FROM shop.orders o
  JOIN shop.customer c ON c.id = customer GROUP BY o.id;
COMMENT ON INDEX shop.orders_by_state IS E'--\n-- Name: x; Type: INDEX; Schema: public; Owner: me\n--\n';
CREATE STATISTICS shop.correlated ON state, amount FROM shop.orders;
CREATE STATISTICS shop.linked ON day, id FROM shop.event_2020; COMMENT ON STATISTICS shop.linked IS 'FROM day';
COMMENT ON INDEX shop.event_text IS 'of all';
CREATE RULE quiet AS ON DELETE TO shop.audit DO INSTEAD NOTHING;
CREATE PUBLICATION all_of_it FOR TABLE shop.orders;
"""


@pytest.fixture(scope="module")
def shop(postgres, tmp_path_factory) -> tuple:
    url = postgres.database()
    run_sql(url, SHOP)
    location = tmp_path_factory.mktemp("shop") / "bundle"
    assert export_database(url, location).complete
    return url, read_bundle(location)


@functools.cache
def dumped(url: str) -> str:
    """Return the dump of a source, which no test changes."""
    return dump(url)


def restore(reader, url, *only, **options):
    return restore_from(reader, "app", url, workers=2, only=only, **options)


def moments(monkeypatch, stop_at: int) -> Iterator[None]:
    """Interrupt the restore once so many entries of post-data were begun."""
    real, begun = sql_steps.StepRunner._make, []
    lock = threading.Lock()

    def make(self, step):
        with lock:
            begun.append(step)
            if len(begun) > stop_at:
                raise KeyboardInterrupt
        real(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(sql_steps, "TOGETHER", 1)
        patch.setattr(sql_steps.StepRunner, "_make", make)
        yield


@pytest.mark.parametrize(
    "stop_at", [7, *(pytest.param(n, marks=pytest.mark.torture) for n in (0, 3, 12, 20))]
)
def test_interrupted_among_indexes_and_constraints_the_rest_is_made(
    shop, other_postgres, monkeypatch, stop_at
):
    url, reader = shop
    destination = other_postgres.database()
    for _ in moments(monkeypatch, stop_at):
        with pytest.raises(KeyboardInterrupt):
            restore(reader, destination)
    made = {
        row[0] for row in fetch(destination, "SELECT name FROM moveout_restore.done WHERE name LIKE 'post%'")
    }
    assert len(made) <= stop_at
    outcome = restore(reader, destination)
    assert (outcome.findings, outcome.size_bytes) == ((), 0)
    assert dump(destination) == dumped(url)


_SLOW = """
import sys
import time
from pathlib import Path
from migrate.runtime.progress import Silent
from migrate.restore.postgres.definitions import post_data as steps
from tests.tools.bundles import restore_from
from tests.tools.bundles import read_bundle
real, begun = steps.StepRunner._make, []
def slow(self, step):
    begun.append(step)
    time.sleep(60 if len(begun) > int(sys.argv[3]) + 1 else 0.1)
    real(self, step)
steps.StepRunner._make, steps.TOGETHER = slow, 1
restore_from(read_bundle(Path(sys.argv[1])), "app", sys.argv[2], workers=2, progress=Silent())
"""


@pytest.mark.parametrize("after", [2, pytest.param(9, marks=pytest.mark.torture)])
def test_killed_among_indexes_and_constraints_the_rest_is_made(shop, other_postgres, after):
    url, reader = shop
    destination = other_postgres.database()
    query = "SELECT name FROM moveout_restore.done WHERE name LIKE 'post-data/%'"

    def made() -> bool:
        there = fetch(destination, "SELECT to_regclass('moveout_restore.done') IS NOT NULL")[0][0]
        return there and len(fetch(destination, query)) >= after

    kill_when(made, execute, _SLOW, reader.store.location, destination, str(after))
    outcome = restore(reader, destination)
    assert (outcome.findings, outcome.size_bytes) == ((), 0)
    assert dump(destination) == dumped(url)


def test_steps_that_meet_in_a_deadlock_are_made_alone(shop, other_postgres, monkeypatch):
    url, reader = shop
    real, met = sql_steps.StepRunner._make, set()

    def make(self, step):
        if step.tables and step.entry.number not in met:
            met.add(step.entry.number)
            raise psycopg.errors.DeadlockDetected
        real(self, step)

    monkeypatch.setattr(sql_steps, "TOGETHER", 1)
    monkeypatch.setattr(sql_steps.StepRunner, "_make", make)
    destination = other_postgres.database()
    assert restore(reader, destination).findings == ()
    assert len(met) > 5
    assert dump(destination) == dumped(url)


def test_keys_of_large_tables_are_made_of_indexes_that_an_interrupted_restore_has_made(
    shop, other_postgres, monkeypatch
):
    url, reader = shop
    real, taken = sql_steps.StepRunner._accepts, []

    def accepts(self, step, sql, *marks):
        if b"USING INDEX" not in sql:
            return real(self, step, sql, *marks)
        if not taken:
            taken.append(step.entry.name)
            raise KeyboardInterrupt
        accepted = real(self, step, sql, *marks)
        taken.append((step.entry.name, accepted))
        return accepted

    monkeypatch.setattr(post_data_order, "_LIGHT_BYTES", -1)
    monkeypatch.setattr(sql_steps.StepRunner, "_accepts", accepts)
    destination = other_postgres.database()
    with pytest.raises(KeyboardInterrupt):
        restore(reader, destination)
    made = "SELECT count(*) FROM moveout_restore.done WHERE name LIKE 'post-data/%-index'"
    assert fetch(destination, made)[0][0] > 1
    assert restore(reader, destination).findings == ()
    assert ("orders orders_pkey", True) in taken
    assert ("event event_pkey", False) in taken  # of a partitioned table the server makes it at once only
    assert dump(destination) == dumped(url)


def test_a_key_that_the_rows_break_is_named_and_the_rest_is_made(postgres, other_postgres, tmp_path):
    url = postgres.database()
    run_sql(
        url,
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1); CREATE UNIQUE INDEX u ON t (a) WHERE a > 1",
    )
    export_database(url, tmp_path / "bundle")
    destination = other_postgres.database()
    script = tmp_path / "bundle/data/app/schema/post-data.sql"
    reader = read_bundle(tmp_path / "bundle")
    wrong = script.read_bytes().replace(b" WHERE (a > 1)", b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "migrate.restore.postgres.definitions.recorded_definitions.Definitions.section",
            lambda *_, **__: wrong if _[1] == "post-data" else b"",
        )
        patch.setattr("migrate.restore.postgres.definitions.pre_data.define", _tables_only)
        outcome = restore(reader, destination)
    assert outcome.findings == ()
    assert [entry.partition(":")[0] for entry in outcome.left_out] == ["INDEX public.u"]


def _tables_only(job):
    connection = job.destination.connection
    with connection.transaction():
        connection.execute("CREATE TABLE public.t (a int)")
        sql_define.restore_state.begin_state(connection, job.state)
        sql_define.restore_state.mark_done(connection, "pre-data")


PART = ("shop.customer", "shop.event", "shop.event_2020", "shop.note")


@pytest.mark.parametrize("only", [(), pytest.param(PART, marks=pytest.mark.torture)])
def test_more_tables_than_can_be_locked_are_made_in_several_transactions(
    shop, other_postgres, monkeypatch, only
):
    url, reader = shop
    real = sql_define._make

    def make(job, entries):
        if len(entries) > 5:
            raise psycopg.errors.OutOfMemory
        return real(job, entries)

    destination = other_postgres.database()
    monkeypatch.setattr(sql_define, "_BATCH", 5)
    with monkeypatch.context() as patch:
        patch.setattr(sql_define, "_make", make)
        patch.setattr(sql_define.restore_state, "mark_done", _until(4))
        with pytest.raises(KeyboardInterrupt):
            restore(reader, destination, *only)
    assert restore(reader, destination, *only).findings == ()
    if only:
        url = other_postgres.database()
        restore(reader, url, *only)
    own = ("-N", "moveout_restore")
    assert dump(destination, *own) == dump(url, *own)


def _until(count: int):
    from migrate.restore.postgres.restore_state import mark_done

    left = [None] * count

    def mark(connection, *names):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        mark_done(connection, *names)

    return mark


def test_definitions_first_and_rows_later(shop, other_postgres):
    url, reader = shop
    destination = other_postgres.database()
    outcome = restore(reader, destination, "schema")
    assert (outcome.items, outcome.findings) == (0, ())
    assert dump(destination, "-s") == dump(url, "-s")
    assert fetch(destination, "SELECT count(*) FROM shop.orders") == [(0,)]
    assert restore(reader, destination, "data").findings == ()
    assert dump(destination) == dumped(url)
    again = restore(reader, destination, "data")
    assert (again.size_bytes, again.skipped_items) == (0, again.items)
    run_sql(destination, "DELETE FROM shop.note WHERE id = 5")
    with pytest.raises(NotEmptyError, match=r"shop\.\w+ with rows"):
        restore(reader, destination, "data")


WITHOUT_TABLES = """
CREATE VIEW one AS SELECT 1 AS n;
CREATE SEQUENCE numbers;
CREATE FUNCTION "odd name"(n int, text DEFAULT ')') RETURNS int LANGUAGE sql AS 'SELECT n';
CREATE FUNCTION plain(numeric(9, 2)) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int);
CREATE TYPE state AS ENUM ('open'); CREATE TYPE pair AS (a int, b int); CREATE DOMAIN small AS int;
"""


def test_a_database_without_tables_is_restored_twice(postgres, other_postgres, tmp_path):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, WITHOUT_TABLES)
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert not restore(reader, destination).notes
    again = restore(reader, destination)
    assert (again.findings, again.left_out) == ((), ())
    assert "holds every object" in again.routine[0]
    run_sql(destination, "CREATE VIEW another AS SELECT 1 AS n")
    with pytest.raises(NotEmptyError, match="is not empty"):
        restore(reader, destination)
    run_sql(destination, "DROP VIEW another; DROP VIEW one")
    with pytest.raises(NotEmptyError, match="is not empty"):
        restore(reader, destination)


def test_rows_without_tables_are_refused(shop, other_postgres):
    with pytest.raises(UsageError, match=r"no table .* and \d more"):
        restore(shop[1], other_postgres.database(), "data")


def test_one_table_comes_back_among_others(shop, other_postgres):
    url, reader = shop
    destination = other_postgres.database()
    restore(reader, destination)
    run_sql(
        destination, "DROP TABLE shop.orders CASCADE; UPDATE shop.customer SET name = 'kept' WHERE id = 1"
    )
    outcome = restore(reader, destination, "orders")
    assert (outcome.items, outcome.findings) == (50, ())
    query = "SELECT indexdef FROM pg_indexes WHERE tablename = 'orders' ORDER BY 1"
    assert fetch(destination, query) == fetch(url, query)
    query = (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'shop.orders'::regclass ORDER BY 1"
    )
    assert fetch(destination, query) == fetch(url, query)
    assert fetch(
        destination, "INSERT INTO shop.orders (customer, amount) VALUES (1, 1) RETURNING id, amount"
    ) == [(51, 2)]
    assert fetch(destination, "SELECT name FROM shop.customer WHERE id = 1") == [("kept",)]


def test_a_partitioned_table_stands_for_its_partitions(shop, other_postgres):
    url, reader = shop
    destination = other_postgres.database()
    outcome = restore(reader, destination, "shop.event")
    assert (outcome.items, outcome.findings) == (60, ())
    assert fetch(
        destination, "SELECT tableoid::regclass::text, count(*) FROM shop.event GROUP BY 1"
    ) == fetch(url, "SELECT tableoid::regclass::text, count(*) FROM shop.event GROUP BY 1")
    query = (
        "SELECT indexrelid::regclass::text, indisvalid, obj_description(indexrelid) FROM pg_index"
        " WHERE indrelid::regclass::text LIKE 'shop.event%' UNION ALL SELECT stxname, true,"
        " obj_description(oid) FROM pg_statistic_ext WHERE stxname = 'linked' ORDER BY 1"
    )
    assert fetch(destination, query) == fetch(url, query)


def test_the_rows_of_one_table_into_the_table_that_is_there(shop, other_postgres):
    _, reader = shop
    destination = other_postgres.database()
    restore(reader, destination)
    run_sql(
        destination,
        "SET session_replication_role = replica; TRUNCATE shop.orders CASCADE; DELETE FROM shop.audit",
    )
    assert restore(reader, destination, "data", "shop.orders").findings == ()
    assert fetch(destination, "SELECT count(*), sum(amount) FROM shop.orders") == [(50, 1275)]
    assert fetch(destination, "SELECT count(*) FROM shop.audit") == [(0,)]


def test_who_may_not_stop_triggers_is_told_before_a_row_is_written(shop, other_postgres, monkeypatch):
    _, reader = shop
    destination = other_postgres.database()
    restore(reader, destination)
    run_sql(
        destination,
        "TRUNCATE shop.orders CASCADE; DROP ROLE IF EXISTS triggered;"
        f" CREATE ROLE triggered LOGIN PASSWORD '{other_postgres.password}'; GRANT ALL ON SCHEMA shop TO triggered;"
        " GRANT ALL ON ALL TABLES IN SCHEMA shop TO triggered; GRANT CREATE ON DATABASE "
        + destination.rpartition("/")[2]
        + " TO triggered",
    )
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    with pytest.raises(NotAllowedError, match="triggers") as caught:
        restore(reader, destination.replace("postgres@", "triggered@"), "data", "shop.orders")
    assert "session_replication_role" in caught.value.next_step
    assert fetch(destination, "SELECT count(*) FROM shop.orders") == [(0,)]


def test_another_part_is_not_begun_while_one_is_unfinished(shop, other_postgres, monkeypatch):
    _, reader = shop
    destination = other_postgres.database()
    for _ in moments(monkeypatch, 2):
        with pytest.raises(KeyboardInterrupt):
            restore(reader, destination, "audit", "customer")
    with pytest.raises(NotEmptyError, match="unfinished restore of audit, customer"):
        restore(reader, destination)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), RestoreSelection()),
        (("schema",), RestoreSelection(rows=False)),
        (("data", "b", "a", "a"), RestoreSelection(definitions=False, tables=("a", "b"))),
        (("schema", "data"), RestoreSelection()),
    ],
)
def test_a_selection_is_read_from_words(words, expected):
    assert RestoreSelection.parse(words) == expected


@pytest.mark.parametrize(("word", "match"), [("nothing", "no table nothing"), ("shop.nothing", "no table")])
def test_an_unknown_table_is_named(shop, other_postgres, word, match):
    with pytest.raises(UsageError, match=match):
        restore(shop[1], other_postgres.database(), word)


def test_rows_hashed_by_an_enum_find_their_partition(exported, other_postgres):
    url, reader = exported(
        "CREATE TYPE colour AS ENUM ('red', 'green', 'blue', 'black', 'white', 'grey', 'pink', 'teal');"
        "CREATE TABLE paint (c colour, n int) PARTITION BY HASH (c);"
        "CREATE TABLE paint_0 PARTITION OF paint FOR VALUES WITH (MODULUS 3, REMAINDER 0);"
        "CREATE TABLE paint_1 PARTITION OF paint FOR VALUES WITH (MODULUS 3, REMAINDER 1);"
        "CREATE TABLE paint_2 PARTITION OF paint FOR VALUES WITH (MODULUS 3, REMAINDER 2) PARTITION BY LIST (c);"
        "CREATE TABLE paint_2_x PARTITION OF paint_2 DEFAULT;"
        "INSERT INTO paint SELECT c, n FROM unnest(enum_range(NULL::colour)) c, generate_series(1, 20) n"
    )
    destination = other_postgres.database()
    run_sql(destination, "CREATE TYPE shift AS ENUM ('x'); DROP TYPE shift")
    outcome = restore(reader, destination)
    assert outcome.findings == ()
    assert fetch(destination, "SELECT c::text, n FROM paint ORDER BY 1, 2") == fetch(
        url, "SELECT c::text, n FROM paint ORDER BY 1, 2"
    )
    assert any("anew" in note for note in outcome.notes)
    assert differences(reader, destination) == []
    run_sql(destination, "UPDATE paint SET n = 0 WHERE c = 'red' AND n = 1")
    assert differences(reader, destination) != []


def test_event_triggers_forbid_nothing_to_the_restore_that_brings_them(exported, other_postgres):
    url, reader = exported(
        "CREATE TABLE t AS SELECT 1 AS x; CREATE MATERIALIZED VIEW m AS SELECT * FROM t;"
        "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'forbidden'; END $$;"
        "CREATE EVENT TRIGGER forbid_start ON ddl_command_start EXECUTE FUNCTION forbid();"
        "CREATE EVENT TRIGGER forbid_drop ON sql_drop EXECUTE FUNCTION forbid();"
        "COMMENT ON EVENT TRIGGER forbid_drop IS 'no!'"
    )
    destination = other_postgres.database()
    try:
        assert restore(reader, destination).findings == ()
        assert dump(destination) == dumped(url)
    finally:
        for one in (url, destination):
            run_sql(
                one, "DROP EVENT TRIGGER IF EXISTS forbid_start; DROP EVENT TRIGGER IF EXISTS forbid_drop"
            )


def test_what_needs_a_table_that_the_bundle_lacks_is_left_out_by_name(
    postgres, other_postgres, tmp_path, monkeypatch
):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(
        url,
        "DROP ROLE IF EXISTS part_reader;"
        f"CREATE ROLE part_reader LOGIN PASSWORD '{postgres.password}'; CREATE TABLE open (id int PRIMARY KEY);"
        "CREATE TABLE closed (id int PRIMARY KEY, o int REFERENCES open);"
        "CREATE TABLE refers (c int REFERENCES closed); CREATE VIEW seen AS SELECT * FROM closed;"
        "CREATE VIEW seen_again AS SELECT * FROM seen; CREATE TABLE child () INHERITS (closed);"
        "CREATE FUNCTION f(closed) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE INDEX ON closed (o);"
        "INSERT INTO open VALUES (1); INSERT INTO closed VALUES (1, 1); INSERT INTO refers VALUES (1);"
        "INSERT INTO child VALUES (2, 1);"
        "GRANT SELECT ON open, refers, child, seen TO part_reader",
    )
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    source = PostgresExporter().open("app", url.replace("postgres@", "part_reader@"), NoBuckets())
    outcome = export([source], open_location(str(tmp_path / "bundle")), workers=2, progress=Silent())
    assert outcome.exit_code == 3
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    restored = restore(read_bundle(tmp_path / "bundle"), destination)
    assert restored.findings == ()
    text = "\n".join(restored.left_out)
    for name in (
        "VIEW public.seen",
        "VIEW public.seen_again",
        "FUNCTION public.f",
        "TABLE public.child",
        "FK CONSTRAINT",
    ):
        assert name in text
    assert fetch(destination, "SELECT * FROM open, refers") == [(1, 1)]


def test_a_busy_partition_of_a_database_is_compared_alone(shop):
    url, _ = shop
    assert set(live_tables(url, TablesToRead(names={("shop", "orders")}))) == {("shop", "orders")}


def test_a_server_that_ends_the_session_is_worth_another_try(shop, other_postgres, monkeypatch):
    url, reader = shop
    destination = other_postgres.database()
    real = sql_steps.StepRunner._make

    def make(self, step):
        if step.entry.kind == "RULE":
            run_sql(
                destination,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()",
            )
        real(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(sql_steps, "TOGETHER", 1)
        patch.setattr(sql_steps.StepRunner, "_make", make)
        with pytest.raises(SourceUnreachableError):
            restore(reader, destination)
    assert restore(reader, destination).findings == ()
    assert dump(destination) == dumped(url)


def test_small_tables_share_transactions_and_what_is_refused_costs_only_itself(
    postgres, other_postgres, tmp_path
):
    url = postgres.database()
    for n in range(6):
        run_sql(url, f"CREATE TABLE t{n} (a int PRIMARY KEY, b text); INSERT INTO t{n} VALUES ({n}, 'x')")
    assert export_database(url, tmp_path / "together").complete
    run_sql(
        url,
        "CREATE FUNCTION fits(int) RETURNS bool LANGUAGE sql AS 'SELECT true';"
        "CREATE TABLE checked (a int CHECK (fits(a))); INSERT INTO checked VALUES (1);"
        "CREATE OR REPLACE FUNCTION fits(int) RETURNS bool LANGUAGE sql AS 'SELECT false'",
    )
    assert export_database(url, tmp_path / "refused").complete
    rows = " UNION ".join(f"SELECT xmin::text FROM t{n}" for n in range(6))
    keys = "SELECT DISTINCT xmin::text FROM pg_constraint WHERE contype = 'p' AND conrelid::regclass::text ~ '^t'"
    made = {}
    for name in ("together", "refused"):
        destination = other_postgres.database()
        outcome = restore(read_bundle(tmp_path / name), destination)
        assert outcome.findings == ()
        names = {("public", f"t{n}") for n in range(6)}
        assert live_tables(destination, TablesToRead(names=names)).keys() == names
        made[name] = len(fetch(destination, rows)), len(fetch(destination, keys)), len(outcome.left_out)
    # Both workers make keys: four and two.
    assert made == {"together": (1, 2, 0), "refused": (6, 2, 1)}


def test_sessions_that_make_indexes_sort_in_half_of_the_servers_buffers(other_postgres, monkeypatch):
    url = other_postgres.database()
    name = url.rpartition("/")[2]
    run_sql(url, f"ALTER DATABASE {name} SET maintenance_work_mem = '2MB'")
    buffers_kb = int(
        fetch(url, "SELECT setting::int8 * 8 FROM pg_settings WHERE name = 'shared_buffers'")[0][0]
    )
    monkeypatch.setattr(sql_steps, "MEMORY_KB", 1024)
    for sessions, expected_kb in ((2, buffers_kb // 4), (buffers_kb // 2, 2048)):
        runner = sql_steps.StepRunner(parse_url(url), b"", set(), workers=sessions, advance=lambda: None)
        with closing(runner._connect()) as connection:
            query = "SELECT setting::int8 FROM pg_settings WHERE name = 'maintenance_work_mem'"
            assert connection.execute(query).fetchone() == (expected_kb,)
    monkeypatch.undo()
    with closing(runner._connect()) as connection:
        assert connection.execute("SHOW maintenance_work_mem").fetchone() == ("256MB",)


def test_the_location_is_not_read_within_the_transaction_that_ends_a_restore(
    shop, other_postgres, monkeypatch
):
    """A location that does not answer is waited for, and the transaction has locks."""
    _, reader = shop
    read, finish, states = BundleReader.catalog, after_rows.finish, []

    def finish_watched(job, script):
        def catalog(of):
            states.append(job.destination.connection.info.transaction_status)
            return read(of)

        with monkeypatch.context() as patch:
            patch.setattr(BundleReader, "catalog", catalog)
            finish(job, script)

    monkeypatch.setattr(after_rows, "finish", finish_watched)
    monkeypatch.setattr(PostgresRestore, "followed_from", 1)
    assert restore(reader, other_postgres.database()).findings == ()
    assert states == [psycopg.pq.TransactionStatus.IDLE]

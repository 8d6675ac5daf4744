"""Where no log can be followed, delta passes find what a source writes; the cutover takes the last one."""

import math
import secrets
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from exporters.errors import SourceGoneError, SourceReplacedError, SourceUnreachableError
from exporters.row_digest import RowsDigest
from migrate.bundle import layout
from migrate.case.model import Endpoint
from migrate.changes.delta_record import DeltaRecord, read_delta, write_delta
from migrate.cli.follow import state_line
from migrate.errors import (
    BusyError,
    DamageError,
    GoneError,
    IncompleteError,
    NoSpaceError,
    NotEqualError,
    UnreachableError,
)
from migrate.follow import delta, followed
from migrate.follow.delta import DeltaCutover, DeltaFollower, DeltaSource, DeltaState
from migrate.follow.followed import RecordedBase
from migrate.follow.handover import cutover_lease
from migrate.follow.own_rows import OwnRows
from migrate.follow.table_digests import as_recorded
from migrate.repair import row_differences
from migrate.repair.live_repair import open_repair
from migrate.restore.mysql.row_repair import MysqlTableWriter
from migrate.runtime import retry_pauses
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.cli.conftest import call
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres
from tests.exporters.postgres.databases import run_sql as run_postgres
from tests.exporters.sqlite import databases as sqlite
from tests.follow.move_case import write_move_case
from tests.tools.waiting import eventually

T, LABEL = ("public", "t"), '"public"."t"'
LARGE_OBJECTS = ("pg_catalog", "pg_largeobject")
MAKE = (
    "CREATE TABLE accounts (id int PRIMARY KEY, balance int)",
    "INSERT INTO accounts VALUES (1, 10), (2, 20), (3, 30)",
    "CREATE TABLE log (entry varchar(20))",
    "CREATE TABLE quiet (id int PRIMARY KEY)",
    "INSERT INTO log VALUES ('begin'), ('begin')",
)
CHANGE = (
    "UPDATE accounts SET balance = balance - 5 WHERE id = 1",
    "DELETE FROM accounts WHERE id = 3",
    "INSERT INTO accounts VALUES (4, 40)",
    "INSERT INTO log VALUES ('begin')",
)
ROWS = {"accounts": [(1, 5), (2, 20), (4, 40)], "log": [("begin",)] * 3}


class Files:
    """SQLite files by URL, as the other engines' modules have databases."""

    def run_sql(self, url, statement):
        with closing(sqlite3.connect(url.removeprefix("sqlite://"))) as connection:
            connection.execute(statement)
            connection.commit()

    def fetch(self, url, query):
        with closing(sqlite3.connect(url.removeprefix("sqlite://"))) as connection:
            return connection.execute(query).fetchall()


ONE_ENGINE = pytest.mark.parametrize(
    "sides",
    [*(pytest.param(name, marks=pytest.mark.torture) for name in ("postgres", "mariadb")), "sqlite"],
    indirect=True,
)
MOST_ENGINES = pytest.mark.parametrize(
    "sides", ["postgres", pytest.param("mariadb", marks=pytest.mark.torture), "sqlite"], indirect=True
)
"""What passes do is the same for all engines: those of which it is tried as a rule, the cheapest where none has a part
of its own in it.
"""


@pytest.fixture
def sides(request, tmp_path, monkeypatch):
    """The engine's ``run_sql`` and ``fetch``, and the URLs of source and destination."""
    if request.param == "sqlite":
        (tmp_path / "new").mkdir()
        return Files(), sqlite.url_of(tmp_path / "old.db"), sqlite.url_of(tmp_path / "new" / "new.db")
    server = request.getfixturevalue(request.param)
    module = {"postgres": postgres, "mariadb": mysql}[request.param]
    old, new = server.database(), server.database()
    if module is postgres:  # a role that may do all but follow the log
        name = f"mover_{secrets.token_hex(4)}"
        old = postgres.login(server, name)
        monkeypatch.setenv("PGPASSWORD", server.password)
        postgres.run_sql(old, f"GRANT postgres TO {name}")
        old = postgres.as_role(old, name)
    return module, old, new


def test_passes_name_what_was_defined_otherwise_since_the_export(mariadb, tmp_path, monkeypatch):
    """Also where the first one comes after that: what nobody has defined since is not compared as exactly."""
    old, new = mariadb.database(), mariadb.database()
    mysql.run_sql(
        old, "CREATE TABLE bills (id INT PRIMARY KEY, total INT); CREATE PROCEDURE tax() SELECT 'a' AS x"
    )
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, old, new, follow=False)
    case = ("-c", "moveout.toml")
    for step in ("export", "restore"):
        assert call(step, *case).code == 0
    again = "SET sql_mode = 'ANSI_QUOTES'; DROP PROCEDURE tax; CREATE PROCEDURE tax() SELECT 'a' AS x"
    rename = "ALTER TABLE bills RENAME COLUMN total TO sum"

    def undefined():
        followed = call("follow", *case, "--delta", "--until-caught-up", "--json")
        return followed.code, followed.json["result"]["sources"][0]["undefined"]

    mysql.run_sql(old, again)
    assert undefined() == (3, ["procedure `tax` as it is defined now"])
    mysql.run_sql(old, rename)
    named = ["table `bills` as it is defined now", "procedure `tax` as it is defined now"]
    assert undefined() == (3, named)
    for statements in (again, rename):
        mysql.run_sql(new, statements)
    assert undefined() == (0, [])


def make_case(sides, tmp_path, monkeypatch):
    """Fill the old side, and write a case of both; return the words that name it."""
    engine, old, new = sides
    for statement in MAKE:
        engine.run_sql(old, statement)
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, old, new, follow=False)
    return ("-c", "moveout.toml")


@MOST_ENGINES
def test_passes_bring_what_was_written_and_the_cutover_proves_it(sides, tmp_path, monkeypatch):
    engine, old, new = sides
    case = make_case(sides, tmp_path, monkeypatch)
    exported = call("export", *case, "--follow", "--json")
    assert exported.code == 0, exported
    assert exported.json["result"]["delta"] == ["app"]
    assert call("restore", *case).code == 0
    for statement in CHANGE:
        engine.run_sql(old, statement)
    followed = call("follow", *case, "--until-caught-up", "--json")
    assert followed.code == 0, followed
    (source,) = followed.json["result"]["sources"]
    assert (source["rows"], source["passes"]) == (4, 1)
    for table, rows in ROWS.items():
        assert sorted(engine.fetch(new, f"SELECT * FROM {table}")) == rows
    status = call("status", *case, "--json").json["result"]["locations"][0]["deltas"][0]
    assert (status["passes"], status["rows"], status["unequal"]) == (1, 4, [])
    again = call("follow", *case, "--until-caught-up", "--json").json["result"]["sources"][0]["delta"]
    assert (again["passes"], again["rows"]) == (2, 0)
    assert again["tables_read"] == (0 if engine is postgres else 3)
    engine.run_sql(old, "INSERT INTO quiet VALUES (7)")
    monkeypatch.setattr("migrate.follow.all_cutovers._QUIET_SECONDS", 0.1)
    hold = () if engine is mysql else ("--hold", "--yes")  # which would hold the whole server
    switched = call("cutover", *case, *hold, "--json")
    assert switched.code == 0, switched
    assert switched.json["result"]["switched"]
    again = call("cutover", *case, *hold, "--json").json["result"]["sources"][0]["seconds"]
    assert [*again] == [*switched.json["result"]["sources"][0]["seconds"]], "stages keep their order"
    assert "the switch was made at" in " ".join(call("status", *case).out.split())
    assert engine.fetch(new, "SELECT * FROM quiet") == [(7,)]
    engine.run_sql(new, "INSERT INTO quiet VALUES (9)")
    undone = call("cutover", *case, "--undo", "--json")
    assert undone.code == 3, undone
    (table,) = undone.json["result"]["written_since"]["app"]
    assert ("quiet" in table["key"], table["expected"], table["found"]) == (True, "1", "2")
    engine.run_sql(old, "INSERT INTO quiet VALUES (8)")
    refused = call("follow", *case, "--until-caught-up")
    assert (refused.code, "quiet" in refused.out, "--overwrite replaces it once" in refused.err) == (
        3,
        True,
        True,
    )
    assert engine.fetch(new, "SELECT * FROM quiet ORDER BY id") == [(7,), (9,)]
    engine.run_sql(new, "DELETE FROM accounts")  # to which the source has not written since the last pass
    assert call("follow", *case, "--until-caught-up", "--overwrite").code == 0
    assert engine.fetch(new, "SELECT * FROM quiet ORDER BY id") == [(7,), (8,)]
    assert sorted(engine.fetch(new, "SELECT * FROM accounts")) == ROWS["accounts"]


@MOST_ENGINES
def test_a_destination_that_was_restored_anew_is_not_taken_for_one_that_passes_have_made_equal(
    sides, tmp_path, monkeypatch
):
    """PostgreSQL says which tables were written to at the source: none was read, and the old rows passed for equal."""
    engine, old, new = sides
    case = make_case(sides, tmp_path, monkeypatch)
    write_move_case(
        tmp_path, old, new, follow=False, transfer=True
    )  # next to the copy a restore is recorded, too
    for step in (("export", "--follow"), ("transfer",), ("restore",)):
        assert call(step[0], *case, *step[1:]).code == 0
    for statement in CHANGE:
        engine.run_sql(old, statement)
    follow = ("follow", *case, "--until-caught-up")
    assert call(*follow).code == 0
    if isinstance(engine, Files):
        Path(new.removeprefix("sqlite://")).unlink()
    for table in () if isinstance(engine, Files) else (*ROWS, "quiet"):
        engine.run_sql(new, f"DROP TABLE {table}")
    assert call("restore", *case).code == 0
    store = open_location("bundle")
    earlier = replace(read_delta(store, "app"), at="2026-01-01T00:00:00.000+00:00")  # times are whole seconds
    write_delta(store, earlier)
    refused = call(*follow)
    assert (refused.code, "a new restore look the same" in refused.out) == (3, True), refused
    assert call(*follow, "--overwrite").code == 0
    for table, rows in ROWS.items():
        assert sorted(engine.fetch(new, f"SELECT * FROM {table}")) == rows


def test_a_table_that_the_destination_has_lost_is_named_though_the_source_has_not_written_to_it(
    postgres, tmp_path
):
    old, new = postgres.database(), postgres.database()
    for url in (old, new):
        run_postgres(
            url, "CREATE TABLE gone AS SELECT 1 AS a, 2 AS b; CREATE TABLE other AS SELECT 1 AS a, 2 AS b"
        )
    source = DeltaSource("app", Endpoint(old), Endpoint(new), open_location(str(tmp_path / "home")))
    write_delta(source.store, DeltaRecord("app"))
    assert source.take_pass(CancellationToken()).unequal == []
    run_postgres(new, "DROP TABLE gone; ALTER TABLE other DROP COLUMN b")
    gone, other = source.take_pass(CancellationToken()).unequal
    assert gone == '"public"."gone": it is not at the destination'
    assert other.startswith('"public"."other": ')


@ONE_ENGINE
def test_a_first_pass_replaces_only_what_the_restore_has_put_there(sides, tmp_path, monkeypatch):
    engine, old, new = sides
    case = make_case(sides, tmp_path, monkeypatch)
    assert call("export", *case).code == call("restore", *case).code == 0
    engine.run_sql(new, "INSERT INTO log VALUES ('of the new side')")
    for url in (old, new):
        engine.run_sql(url, "CREATE TABLE later (id int PRIMARY KEY)")
        engine.run_sql(url, "ALTER TABLE accounts ADD COLUMN note varchar(9) DEFAULT 'x'")
    engine.run_sql(old, "INSERT INTO later VALUES (1)")
    engine.run_sql(old, "UPDATE accounts SET balance = 0 WHERE id = 1")
    refused = call("follow", *case, "--delta", "--until-caught-up")
    assert (refused.code, "log" in refused.out) == (3, True), refused
    assert ("of the new side",) in engine.fetch(new, "SELECT * FROM log")
    engine.run_sql(new, "DELETE FROM log WHERE entry = 'of the new side'")
    assert call("follow", *case, "--delta", "--until-caught-up").code == 0
    assert engine.fetch(new, "SELECT * FROM later") == [(1,)]
    assert (1, 0, "x") in engine.fetch(new, "SELECT * FROM accounts")


OTHERWISE = {
    "postgres": (
        """CREATE ROLE {role}; CREATE TABLE kept (id int PRIMARY KEY); GRANT SELECT ON kept TO {role};
        CREATE TABLE named (id int PRIMARY KEY, v varchar(9) DEFAULT 'a' CHECK (v IN ('a', 'b')))""",
        """GRANT INSERT ON named TO {role}; COMMENT ON TABLE named IS 'of it'; REVOKE SELECT ON kept FROM {role};
        ALTER TABLE named ALTER v SET DEFAULT 'b'""",
        [
            "column public.named.v (character varying(9)) as it is defined now",
            "comment on table public.named as it is now",
            "privileges of table public.kept as it is now",
            "privileges of table public.named as it is now",
        ],
    ),
    "mariadb": (
        "CREATE USER {role}; CREATE TABLE named (id int PRIMARY KEY); GRANT SELECT ON {database}.* TO {role}",
        "GRANT INSERT ON {database}.* TO {role}",
        ["privileges of '{role}'@'%' as they are now"],
    ),
}


@pytest.mark.parametrize("kind", ["postgres", pytest.param("mariadb", marks=pytest.mark.torture)])
def test_what_was_granted_and_defined_otherwise_since_the_export_is_named(
    request, kind, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("migrate.follow.all_cutovers._QUIET_SECONDS", 0.1)
    server, other = (request.getfixturevalue(name) for name in (kind, f"other_{kind}"))
    engine = postgres if kind == "postgres" else mysql
    old, new = server.database(), other.database()
    role = f"app_{secrets.token_hex(4)}"
    words = {"role": role, "database": f"`{old.rpartition('/')[2].partition('?')[0]}`"}
    make, change, names = OTHERWISE[kind]
    case = ("-c", "moveout.toml")
    write_move_case(tmp_path, old, new, follow=False)
    engine.run_sql(old, make.format(**words))
    try:
        assert call("export", *case).code == call("restore", *case).code == 0
        assert call("follow", *case, "--delta", "--until-caught-up").code == 0
        calm = call("cutover", *case, "--json")
        assert (calm.code, calm.json["result"]["sources"][0]["carried"]["missing"]) == (0, []), calm
        assert call("cutover", *case, "--undo").code == 0
        engine.run_sql(old, change.format(**words))
        switched = call("cutover", *case, "--json")
        missing = switched.json["result"]["sources"][0]["carried"]["missing"]
        assert (switched.code, missing) == (3, [name.format(**words) for name in names]), switched
    finally:
        for url in (old, new):
            drop = (
                f"DROP OWNED BY {role}; DROP ROLE {role}"
                if kind == "postgres"
                else f"DROP USER IF EXISTS {role}"
            )
            engine.run_sql(url, drop)


def test_what_was_defined_otherwise_before_the_first_pass_is_named_too(
    postgres, other_postgres, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("migrate.follow.all_cutovers._QUIET_SECONDS", 0.1)
    old, new, case = postgres.database(), other_postgres.database(), ("-c", "moveout.toml")
    write_move_case(tmp_path, old, new, follow=False)
    run_postgres(old, "CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT id FROM t")
    assert call("export", *case).code == call("restore", *case).code == 0
    run_postgres(old, "CREATE OR REPLACE VIEW v AS SELECT id + 1 AS id FROM t")
    assert call("follow", *case, "--delta", "--until-caught-up").code == 3
    switched = call("cutover", *case, "--json")
    missing = switched.json["result"]["sources"][0]["carried"]["missing"]
    assert (switched.code, missing) == (3, ["view public.v as it is defined now"]), switched


@pytest.mark.parametrize(
    ("sides", "write"),
    [
        pytest.param("postgres", "UPDATE accounts SET balance = 0 WHERE id = 2", marks=pytest.mark.torture),
        ("postgres", "SELECT lo_put(4711, 0, 'new')"),
        ("sqlite", "UPDATE accounts SET balance = 0 WHERE id = 2"),
    ],
    indirect=["sides"],
)
def test_a_source_that_is_written_to_while_it_is_compared_is_not_proved(sides, write, tmp_path):
    engine, old, new = sides
    statements = [*MAKE, "SELECT lo_from_bytea(4711, 'old')"] if engine is postgres else MAKE
    for url in (old, new):
        for statement in statements:
            engine.run_sql(url, statement)
    store = open_location(str(tmp_path / "bundle"))
    write_delta(store, DeltaRecord("app"))
    stages = []

    def report(stage):
        stages.append(stage)
        if is_written and stages.count(stage) == 2:  # the check after the comparison
            engine.run_sql(old, write)

    cutover = DeltaCutover(
        DeltaSource("app", Endpoint(old), Endpoint(new), store), CancellationToken(), 2, report=report
    )
    is_written = False
    assert cutover.prove().differences == []
    is_written = True
    stages.clear()
    with pytest.raises(BusyError, match="was written to while it was compared"):
        cutover.prove()


def test_a_location_that_is_away_gets_no_record(files, tmp_path):
    """As where a disk is not mounted: the record would be lost when it is back."""
    home = tmp_path / "away"
    with pytest.raises(UnreachableError, match="has no record of the delta passes of app"):
        replace(files, store=open_location(str(home))).take_pass(CancellationToken())
    assert not list(home.rglob("*.json"))


def test_a_handover_says_which_pass_was_the_last_one_also_of_an_earlier_run(postgres, tmp_path, monkeypatch):
    """The source does not answer, so the follow that ends takes no pass of its own."""
    old, new = postgres.database(), postgres.database()
    run_postgres(old, "CREATE TABLE t (id int PRIMARY KEY)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("migrate.cli.follow._WATCH_SECONDS", 0.1)
    write_move_case(tmp_path, old, new, follow=False)
    case = ("-c", "moveout.toml")
    assert call("export", *case).code == call("restore", *case).code == 0
    ended = handed_over(tmp_path, new)
    assert (ended.code, "app: no delta pass is done yet" in ended.out) == (0, True), ended
    (line,) = handed_over(tmp_path, new, "--json").json["result"]["summary"]
    assert (line["word"], "moveout cutover" in line["next_step"]) == ("no", True)
    write_move_case(tmp_path, old, new, follow=False)
    assert call("follow", *case, "--delta", "--until-caught-up").code == 0
    ended = handed_over(tmp_path, new)
    assert (ended.code, "app: delta pass 1 made it equal to the source at" in ended.out) == (0, True), ended
    assert "moveout cutover has begun, and goes on from here" in ended.out


def handed_over(folder, new, *words):
    """Follow a source that does not answer until a cutover begins."""
    write_move_case(folder, "postgresql://127.0.0.1:9/gone", new, follow=False)
    ended = threading.Event()

    def cut_over():
        eventually(lambda: any(thread.name == "moveout-delta-app" for thread in threading.enumerate()))
        with cutover_lease(open_location(str(folder / "bundle")), Silent()):
            ended.wait(60)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(cut_over)
        try:
            return call("follow", "-c", "moveout.toml", "--delta", *words)
        finally:
            ended.set()


def test_an_unforeseen_error_stops_the_passes_of_a_source_with_a_message(tmp_path):
    class BrokenSource(DeltaSource):
        def take_pass(self, cancellation):
            time.sleep(0.05)
            raise ZeroDivisionError("a defect")

    notes = []
    store = open_location(str(tmp_path))
    source = BrokenSource("app", Endpoint("sqlite:///old"), Endpoint("sqlite:///new"), store)
    follower = DeltaFollower(
        source, cancellation=CancellationToken(), note=notes.append, limit_seconds=math.inf
    )
    follower.start()
    follower.join(60)
    assert "ZeroDivisionError: a defect" in str(follower.state().stopped[0])
    assert len(notes) == 1
    assert notes[0].startswith("app: stopped: ")


@pytest.fixture
def files(tmp_path):
    """A source of two files with a record of delta passes, of which none is done."""
    urls = [sqlite.url_of(tmp_path / name) for name in ("old.db", "new.db")]
    for url in urls:
        Files().run_sql(url, MAKE[0])
    Files().run_sql(urls[0], MAKE[1])
    store = open_location(str(tmp_path / "home"))
    write_delta(store, DeltaRecord("app", "no log"))
    return DeltaSource("app", Endpoint(urls[0]), Endpoint(urls[1]), store)


def test_each_pass_is_recorded(files):
    token = CancellationToken()
    assert files.last_pass() is None
    first = files.take_pass(token)
    assert (first.passes, first.rows, first.tables_read, first.reason) == (1, 3, 1, "no log")
    assert read_delta(files.store, "app") == files.last_pass() == first
    second = files.take_pass(token)
    assert (second.passes, second.rows) == (2, 0)
    assert first.at < second.at
    assert 0 < second.seconds < 60
    Files().run_sql(files.destination.url, "DROP TABLE accounts")
    (unequal,) = files.take_pass(token).unequal
    assert unequal == '"main"."accounts": it is not at the destination'


def test_a_pass_that_was_killed_is_gone_on_with(files, monkeypatch):
    """Of the table to which it wrote nobody knows what it has left; of the next pass it is known again."""
    token, repair = CancellationToken(), delta.repair_from_source

    def kill(*sides, **more):
        repair(*sides, **more)
        raise KeyboardInterrupt

    assert files.take_pass(token).rows == 3
    Files().run_sql(files.source.url, CHANGE[0])
    monkeypatch.setattr(delta, "repair_from_source", kill)
    with pytest.raises(KeyboardInterrupt):
        files.take_pass(token)
    monkeypatch.setattr(delta, "repair_from_source", repair)
    Files().run_sql(files.source.url, CHANGE[1])
    assert files.take_pass(token).rows == 1
    Files().run_sql(files.destination.url, CHANGE[2])
    with pytest.raises(NotEqualError, match="of app has other rows at"):
        files.take_pass(token)


@MOST_ENGINES
@pytest.mark.parametrize("table", [MAKE[0], MAKE[0].replace(" PRIMARY KEY", "")], ids=["key", "no key"])
def test_a_row_that_others_write_during_a_pass_stays(sides, table, tmp_path, monkeypatch):
    """The pass reads it, and writes a moment later."""
    engine, old, new = sides
    source = DeltaSource("app", Endpoint(old), Endpoint(new), open_location(str(tmp_path / "home")))
    write_delta(source.store, DeltaRecord("app"))
    for statement in (table, MAKE[1]):
        for url in (old, new):
            engine.run_sql(url, statement)
    engine.run_sql(old, CHANGE[0])
    before = OwnRows.before_writing

    def write_before(*words):
        before(*words)
        engine.run_sql(new, "UPDATE accounts SET balance = 7000 WHERE id = 1")

    with monkeypatch.context() as patch:
        patch.setattr(OwnRows, "before_writing", write_before)
        with pytest.raises(BusyError, match=r"accounts.* was written to while it was compared"):
            source.take_pass(CancellationToken())
    assert engine.fetch(new, "SELECT balance FROM accounts WHERE id = 1") == [(7000,)]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_a_row_with_text_that_is_not_valid_is_replaced(tmp_path, encoding):
    """It was said of each such row that others had written to it."""
    (tmp_path / "new").mkdir()
    old, new = tmp_path / "old.db", tmp_path / "new" / "new.db"
    for path, last in ((old, "new"), (new, "old")):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"PRAGMA encoding = '{encoding}'")
            connection.execute("CREATE TABLE t (k TEXT PRIMARY KEY, x, last TEXT) WITHOUT ROWID")
            connection.execute(
                "INSERT INTO t VALUES (CAST(x'ff00d8' AS TEXT), CAST(x'00dcfe' AS TEXT), ?)", (last,)
            )
    urls = [sqlite.url_of(path) for path in (old, new)]
    source = DeltaSource("app", *map(Endpoint, urls), open_location(str(tmp_path / "home")))
    write_delta(source.store, DeltaRecord("app"))
    assert source.take_pass(CancellationToken()).rows == 1
    rows = "SELECT hex(k), hex(x), last FROM t"
    assert Files().fetch(urls[1], rows) == Files().fetch(urls[0], rows)


class KilledAtThird(CancellationToken):
    """Kills the command when it looks for a cancellation for the third time."""

    looks = 0

    def check(self):
        self.looks += 1
        if self.looks == 3:
            raise KeyboardInterrupt


@ONE_ENGINE
def test_after_a_kill_a_pass_goes_on_but_rows_of_others_stay(sides, tmp_path, monkeypatch):
    """Killed between two transactions, where the table has many."""
    monkeypatch.setattr(row_differences, "PARTITION_BYTES", 300)
    engine, old, new = sides
    source = DeltaSource("app", Endpoint(old), Endpoint(new), open_location(str(tmp_path / "home")))
    write_delta(source.store, DeltaRecord("app"))
    for url in (old, new):
        engine.run_sql(url, MAKE[0])
    engine.run_sql(old, f"INSERT INTO accounts VALUES {', '.join(f'({n}, {n})' for n in range(50))}")
    assert source.take_pass(CancellationToken()).passes == 1
    for _ in range(2):
        engine.run_sql(old, "UPDATE accounts SET balance = balance + 1")
        with pytest.raises(KeyboardInterrupt):
            source.take_pass(KilledAtThird())
    assert source.take_pass(CancellationToken()).passes == 2
    rows = "SELECT * FROM accounts ORDER BY id"
    assert engine.fetch(new, rows) == engine.fetch(old, rows)
    engine.run_sql(old, "UPDATE accounts SET balance = balance + 1")
    with pytest.raises(KeyboardInterrupt):
        source.take_pass(KilledAtThird())
    engine.run_sql(new, "UPDATE accounts SET balance = 7000 WHERE id = 7")
    with pytest.raises(NotEqualError, match=r"other rows .* \(50 rows now\)"):
        source.take_pass(CancellationToken())
    assert (7, 7000) in engine.fetch(new, rows)
    assert replace(source, overwrites=True).take_pass(CancellationToken()).passes == 3
    assert engine.fetch(new, rows) == engine.fetch(old, rows)
    assert len(list((tmp_path / "home").rglob("*.json"))) == 1


def test_a_pass_that_was_killed_in_a_table_without_transactions_goes_on(mariadb, tmp_path, monkeypatch):
    old, new = mariadb.database(), mariadb.database()
    source = DeltaSource("app", Endpoint(old), Endpoint(new), open_location(str(tmp_path / "home")))
    write_delta(source.store, DeltaRecord("app"))
    for url in (old, new):
        mysql.run_sql(url, f"{MAKE[0]} ENGINE = MyISAM")
    mysql.run_sql(old, f"INSERT INTO accounts VALUES {', '.join(f'({n}, {n})' for n in range(9))}")
    assert source.take_pass(CancellationToken()).passes == 1
    left, refused = [3], MysqlTableWriter._refused

    def killed_soon(*words):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return refused(*words)

    mysql.run_sql(old, "UPDATE accounts SET balance = balance + 1 WHERE id > 3")
    with monkeypatch.context() as patch:
        patch.setattr(MysqlTableWriter, "_refused", killed_soon)
        with pytest.raises(KeyboardInterrupt):
            source.take_pass(CancellationToken())
    assert mysql.fetch(new, "SELECT count(*) FROM accounts") == [(6,)], "of five rows two are back"
    mysql.run_sql(new, "INSERT INTO accounts VALUES (99, 7000)")
    with pytest.raises(NotEqualError, match="other rows"):
        source.take_pass(CancellationToken())
    mysql.run_sql(new, "DELETE FROM accounts WHERE id = 99")
    assert source.take_pass(CancellationToken()).rows == 3
    rows = "SELECT * FROM accounts ORDER BY id"
    assert mysql.fetch(new, rows) == mysql.fetch(old, rows)


def test_a_pass_that_is_stopped_by_one_table_records_what_it_has_left_in_others(files):
    token = CancellationToken()
    for url in (files.source.url, files.destination.url):
        Files().run_sql(url, MAKE[2])
    assert files.take_pass(token).rows == 3
    Files().run_sql(files.source.url, CHANGE[0])
    Files().run_sql(files.source.url, "INSERT INTO log VALUES ('of the source')")
    Files().run_sql(files.destination.url, "INSERT INTO log VALUES ('of the new side')")
    with pytest.raises(NotEqualError, match=r'"main"\."log" of app has other rows'):
        files.take_pass(token)
    Files().run_sql(files.destination.url, CHANGE[2])
    Files().run_sql(files.source.url, CHANGE[1])
    with pytest.raises(NotEqualError, match=r'"main"\."accounts" of app has other rows'):
        files.take_pass(token)


def test_passes_that_recorded_nothing_of_the_destination_are_gone_on_with(files, monkeypatch):
    token = CancellationToken()
    write_delta(files.store, replace(files.take_pass(token), left={}))
    Files().run_sql(files.source.url, CHANGE[0])
    with monkeypatch.context() as patch:
        patch.setattr(DeltaSource, "_restored", lambda _: pytest.fail("the bundle is no measure any more"))
        assert files.take_pass(token).rows == 1


def test_a_pass_that_waits_for_another_one_knows_what_that_has_left(mariadb, tmp_path, monkeypatch):
    """A cutover took the rows of a follow that was just ending for those of others."""
    old, new = mariadb.database(), mariadb.database()
    for url in (old, new):
        mysql.run_sql(url, MAKE[0])
    store, token = open_location(str(tmp_path / "home")), CancellationToken()
    write_delta(store, DeltaRecord("app"))
    source = DeltaSource("app", Endpoint(old), Endpoint(new), store)
    before = source.take_pass(token)
    mysql.run_sql(old, MAKE[1])
    meanwhile = source.take_pass(token)
    mysql.run_sql(old, CHANGE[0])
    write_delta(store, before)
    name = new.rpartition("/")[2]
    asks = f"info LIKE 'SELECT GET_LOCK(%{name}%' AND id <> connection_id()"
    is_locked = []

    def write(*words):
        is_locked.extend(mysql.fetch(old, f"SELECT IS_USED_LOCK('moveout {name}') IS NOT NULL"))
        write_delta(*words)

    with ThreadPoolExecutor(1) as pool, open_repair(Endpoint(new)):
        waits = pool.submit(source.take_pass, token)
        eventually(lambda: mysql.fetch(old, f"SELECT 1 FROM information_schema.processlist WHERE {asks}"))
        write_delta(store, meanwhile)
        monkeypatch.setattr(delta, "write_delta", write)
    assert waits.result().rows == 1
    assert set(is_locked) == {(1,)}, "who waits reads the record once the destination is free"


def test_a_table_that_others_have_emptied_is_not_filled_again(files):
    """Jobs that the new side has done would be done twice."""
    assert files.take_pass(CancellationToken()).rows == 3
    Files().run_sql(files.destination.url, "DELETE FROM accounts")
    with pytest.raises(NotEqualError):
        files.take_pass(CancellationToken())


def test_a_location_that_goes_away_during_a_pass_gets_no_record(files, tmp_path, monkeypatch):
    repair = delta.repair_from_source

    def repair_meanwhile(*sides, **more):
        (tmp_path / "home").rename(tmp_path / "away")
        return repair(*sides, **more)

    monkeypatch.setattr(delta, "repair_from_source", repair_meanwhile)
    with pytest.raises(UnreachableError, match="has no record of the delta passes of app"):
        files.take_pass(CancellationToken())
    assert not (tmp_path / "home").exists()


def test_no_pass_begins_while_the_location_does_not_say_when_the_export_was(files, monkeypatch):
    """What the source has defined since would count as older, in the record of all passes."""

    def read_none(store):
        raise UnreachableError(f"{store.location} is away")

    monkeypatch.setattr(delta, "BundleReader", read_none)
    with pytest.raises(UnreachableError, match="is away"):
        files.take_pass(CancellationToken())
    assert read_delta(files.store, "app").defined is None


def test_no_pass_begins_while_the_bundle_is_damaged(files, tmp_path):
    """It would say nothing of when the export was, either."""
    assert sqlite.export_file(tmp_path / "old.db", tmp_path / "bundle").complete
    for path in (tmp_path / "bundle").iterdir():
        path.rename(tmp_path / "home" / path.name)
    (tmp_path / "home" / layout.RECONCILIATION).write_text("[]")
    with pytest.raises(DamageError, match=layout.RECONCILIATION):
        files.take_pass(CancellationToken())
    assert read_delta(files.store, "app").defined is None


def test_a_destination_that_does_not_answer_is_named_by_itself(postgres, tmp_path):
    """It was called the end of the source's snapshot."""
    old, gone = postgres.database(), "postgresql://127.0.0.1:9/gone"
    store = open_location(str(tmp_path))
    write_delta(store, DeltaRecord("app"))
    with pytest.raises(UnreachableError) as raised:
        DeltaSource("app", Endpoint(old), Endpoint(gone), store).take_pass(CancellationToken())
    assert (raised.value.about, "snapshot" in str(raised.value)) == (gone, False)


def test_which_side_of_a_pass_is_not_there_is_named(files, tmp_path):
    (tmp_path / "new.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(IncompleteError, match="app was not restored yet"):
        files.take_pass(CancellationToken())
    (tmp_path / "elsewhere.db").rename(tmp_path / "new.db")
    (tmp_path / "old.db").unlink()
    with pytest.raises(GoneError, match=r"old\.db"):
        files.take_pass(CancellationToken())


@pytest.mark.parametrize(
    ("answers", "is_gone"),
    [
        ([[]], False),
        ([[], []], False),
        ([[], SourceGoneError("the log was removed")], True),
        ([SourceGoneError("the log was removed")], True),
        ([SourceReplacedError("an older copy of the source")], False),
        ([SourceUnreachableError("no answer")], False),
    ],
)
def test_a_log_is_gone_where_it_does_not_continue_what_is_captured(tmp_path, monkeypatch, answers, is_gone):
    class Stream:
        def __init__(self):
            self.left = list(answers)
            self.is_continuous = False

        def receive(self, seconds):
            answer = self.left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            self.is_continuous = not self.left
            return answer

    class OpenedLog:
        @contextmanager
        def stream(self, log, after, folder):
            assert (log, after) == ({"slot": "s"}, 9)
            yield Stream()

    monkeypatch.setattr(RecordedBase, "open_log", lambda _, endpoint: OpenedLog())
    base = RecordedBase("app", "x://old", 9, {"slot": "s"}, "case_1")
    assert delta._is_log_gone(open_location(str(tmp_path)), base, Endpoint("x://old")) is is_gone


class Passes:
    """A source whose passes are as given; then the run is cancelled."""

    name = "app"

    def __init__(self, *passes, last=None):
        self.passes, self.last = list(passes), last
        self.waits, self.clock, self.compared_seconds = [], 0.0, 0.0

    @property
    def is_cancelled(self):
        return not self.passes

    def wait(self, seconds):
        self.waits.append(seconds)

    def last_pass(self):
        if isinstance(self.last, Exception):
            raise self.last
        return self.last

    def guarded(self):
        return self

    def take_pass(self, cancellation):
        taken = self.passes.pop(0)
        if isinstance(taken, Exception):
            raise taken
        return taken

    def gaps_since(self, known):
        self.clock += self.compared_seconds
        return ()


def delta_follower(source, notes):
    return DeltaFollower(source, cancellation=source, note=notes.append, limit_seconds=math.inf)


def test_passes_go_on_after_what_passes_and_rest_as_long_as_they_take(monkeypatch):
    monkeypatch.setattr(retry_pauses, "_FIRST_SECONDS", 1.0)
    away, notes = UnreachableError("away"), []
    source = Passes(
        away,
        away,
        DeltaRecord("app", rows=3, seconds=4.0),
        away,
        NoSpaceError("full"),
        DeltaRecord("app", at="2026-01-01T00:00Z", rows=5, seconds=40.0, unequal=["t: no key"]),
        last=DeltaRecord("app", passes=5, unequal=["u: no key"]),
    )
    monkeypatch.setattr(delta, "time", SimpleNamespace(monotonic=lambda: source.clock))
    source.compared_seconds = 5.0  # both servers are busy as long as definitions are read, too
    follower = delta_follower(source, notes)
    assert (follower.state().last, follower.state().skipped) == (None, ())
    follower._run()
    state = follower.state()
    assert (state.passes, state.rows, state.skipped) == (2, 8, ["t: no key"])
    assert "made a part of it equal to the source" in state_line(state)
    assert notes == [f"app: no delta pass for now: {reason}" for reason in ("away", "away", "full")]
    assert source.waits == [1.0, 2.0, 10.0, 1.0, 2.0, 45.0]


def test_what_fails_for_long_ends_passes_that_are_to_end(monkeypatch):
    monkeypatch.setattr(retry_pauses, "_FIRST_SECONDS", 1.0)
    clock = iter([0.0, 5.0, 10.0])
    monkeypatch.setattr(retry_pauses, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    source = Passes(*[UnreachableError("away")] * 9)
    follower = DeltaFollower(source, cancellation=source, note=[].append, limit_seconds=10.0)
    with pytest.raises(UnreachableError, match="away"):
        follower._run()
    assert source.waits == [1.0, 2.0]


@pytest.mark.parametrize(
    ("last", "known"), [(DeltaRecord("app", passes=5), 5), (UnreachableError("away"), None)]
)
def test_a_follow_begins_with_the_last_pass_of_an_earlier_run(last, known):
    follower = delta_follower(Passes(last=last), [])
    follower._run()
    assert getattr(follower.state().last, "passes", None) == known


@pytest.mark.parametrize(("passes", "runs", "is_done"), [(0, True, False), (1, True, True), (0, False, True)])
def test_one_whole_pass_is_enough(passes, runs, is_done):
    follower = delta_follower(Passes(), [])
    follower._thread = SimpleNamespace(is_alive=lambda: runs)
    assert (follower.is_ended, follower.is_done) == (not runs, not runs)
    follower._state = DeltaState("app", passes=follower.state().passes + passes)
    assert follower.is_done is is_done


def test_a_cutover_catches_up_until_a_pass_writes_nothing():
    records = [DeltaRecord("app", rows=rows) for rows in (0, 3, 7, 0)]
    cutover = DeltaCutover(Passes(*records), CancellationToken(), 1)
    before, first, second, third = (cutover.catch_up() for _ in range(4))
    assert (before != first, first != second, second == third) == (True, True, True)


@pytest.mark.parametrize(
    ("states", "rows", "digests", "is_written"),
    [
        ({LABEL: "1"}, 0, {T: RowsDigest(2, 254)}, False),
        ({LABEL: "1"}, 1, {}, True),
        ({LABEL: "1"}, 0, {LARGE_OBJECTS: RowsDigest(1, 1)}, True),
        ({}, 9, {T: RowsDigest(2, 255)}, False),
        ({}, 0, {T: RowsDigest(2, 254)}, True),
        ({}, 0, {}, True),
    ],
)
def test_whether_a_source_was_written_to_is_asked_of_its_server_or_read_again(
    monkeypatch, states, rows, digests, is_written
):
    def read_again(source, *, workers, without):
        assert (source, workers) == (Endpoint("postgresql://old/d"), 3)
        return as_recorded({T: RowsDigest(2, 255)} if T not in without else {})

    monkeypatch.setattr(delta, "recorded_digests", read_again)
    source = Passes(DeltaRecord("app", rows=rows))
    source.source = Endpoint("postgresql://old/d")
    cutover = DeltaCutover(source, CancellationToken(), 3)
    assert cutover._is_written_since(DeltaRecord("app", states=states), digests) is is_written


def test_the_destination_is_activated_where_its_engine_holds_something_back(monkeypatch):
    activated = []
    monkeypatch.setattr(
        followed, "load_part", lambda reference: lambda *words: activated.append((reference, *words))
    )
    new = Endpoint("sqlite:///new.db")
    source = DeltaSource("app", Endpoint("sqlite:///old.db"), new, None)
    for activation in ("activation", ""):
        monkeypatch.setattr(Endpoint, "engine", SimpleNamespace(activation=activation))
        source.activate()
    assert activated == [("activation", new.url, {}, "app")]
    assert DeltaCutover(source, CancellationToken(), 1).recent_sessions() == ()

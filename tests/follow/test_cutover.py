"""A whole move with a cutover: the application writes until the hold; nothing of it is lost, and one can go back."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import threading
import time
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from unittest.mock import ANY

import psycopg
import pytest

from exporters.errors import SourceUnreachableError
from migrate.cli.moves.cutover_buckets import CutoverBuckets
from migrate.custody.log import custody_log
from migrate.errors import BusyError
from migrate.follow.cutover import Cutover
from migrate.restore.postgres.changes import change_writer
from migrate.storage.registry import open_location
from tests.cli.conftest import call
from tests.exporters.postgres.databases import as_role, fetch, login, run_sql
from tests.follow.move_case import write_move_case
from tests.tools.clients import boto_client
from tests.tools.processes import forked
from tests.tools.waiting import be_impatient, eventually

BANK = """
CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);
INSERT INTO accounts SELECT g, 100 FROM generate_series(1, 50) g;
CREATE TABLE log (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, note text);
CREATE TABLE keyless (note text);
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS entries FROM accounts;
"""
TRANSFER = """
UPDATE accounts SET balance = balance - 1 WHERE id = {0}; UPDATE accounts SET balance = balance + 1 WHERE id = {1};
INSERT INTO log (note) VALUES ('from {0} to {1}'); INSERT INTO keyless VALUES ('{0}');
"""
MORE = """
CREATE TABLE still (id int PRIMARY KEY); INSERT INTO still VALUES (1);
CREATE TABLE altered (id int PRIMARY KEY); INSERT INTO altered VALUES (1);
CREATE TABLE emptied (id int PRIMARY KEY); INSERT INTO emptied VALUES (1);
CREATE TABLE whole (note text); ALTER TABLE whole REPLICA IDENTITY FULL; INSERT INTO whole VALUES ('a'), ('a');
CREATE TABLE numbered (n numeric PRIMARY KEY); INSERT INTO numbered VALUES (1.50);
CREATE TABLE goods (id int, code text, n int, PRIMARY KEY (id, code));
INSERT INTO goods SELECT g, E'\\\\"'',' || g, g FROM generate_series(1, 3000) g;
"""


class Application:
    """Transfers money until it ends, the database refuses it, or a test fails; counts what was acknowledged."""

    def __init__(self, url):
        self.acknowledged = 0
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self):
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                while not self._stop.wait(0.02):
                    first = self.acknowledged % 50 + 1
                    with connection.transaction():
                        connection.execute(TRANSFER.format(first, first % 50 + 1).encode())
                    self.acknowledged += 1
        except psycopg.Error:
            return  # the hold ends the session, or refuses the transaction

    def wait(self):
        self._thread.join(60)
        assert not self._thread.is_alive()

    def end(self):
        self._stop.set()
        self.wait()


@pytest.fixture
def move(postgres, other_postgres, tmp_path, monkeypatch):
    """The case file of a database that is to be exported with --follow, and restored; the old and the new URL."""
    old, new = postgres.database(), other_postgres.database()
    run_sql(old, BANK)
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, old, new)
    yield old, new
    call("hold", "undo", "moveout-cutover.json", "--yes")


@pytest.fixture(scope="module")
def moved(postgres, other_postgres, tmp_path_factory):
    """The folder of a move that was brought over, the old and the new URL. Each test leaves both sides equal, and the
    old one in use.
    """
    old, new = postgres.database(), other_postgres.database()
    run_sql(old, BANK + MORE)
    folder = tmp_path_factory.mktemp("moved")
    write_move_case(folder, old, new)
    with contextlib.chdir(folder):
        bring_over()
    return folder, old, new


@pytest.fixture
def shared_move(moved, monkeypatch):
    """The old and the new URL of ``moved``."""
    folder, old, new = moved
    monkeypatch.chdir(folder)
    yield old, new
    call("cutover", "-c", "moveout.toml", "--undo")


def test_under_the_hold_a_silent_server_is_waited_for_a_while_and_the_old_side_is_released(
    shared_move, other_postgres, monkeypatch
):
    old, _ = shared_move
    words = ["cutover", "-c", "moveout.toml", "--hold", "--yes"]
    prove = Cutover.prove

    def prove_in_silence(cutover):
        stop(other_postgres, signal.SIGSTOP)
        return prove(cutover)

    try:
        with monkeypatch.context() as patch:
            be_impatient(patch)
            patch.setattr(Cutover, "prove", prove_in_silence)
            refused = call(*words)
    finally:
        stop(other_postgres, signal.SIGCONT)
    assert refused.code == SourceUnreachableError.exit_code, refused
    assert "the command ends at about" in refused.err
    assert not Path("moveout-cutover.json").exists()
    run_sql(old, "INSERT INTO keyless VALUES ('the old side is in use')")
    switched = call(*words)
    assert switched.code == 0, switched
    stop(other_postgres, signal.SIGSTOP)
    be_impatient(monkeypatch)
    try:
        undone = call("cutover", "-c", "moveout.toml", "--undo")
    finally:
        stop(other_postgres, signal.SIGCONT)
    assert undone.code == 3, undone
    assert "what the new side of app has since could not be read: postgresql://" in " ".join(
        undone.out.split()
    )
    run_sql(old, "INSERT INTO keyless VALUES ('the old side is in use again')")
    assert call("cutover", "-c", "moveout.toml", "--undo").code == 2


def stop(server, number):
    """Send a signal to all processes of a server."""
    pid = server.child.popen.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in [pid, *map(int, children)]:
        with suppress(ProcessLookupError):
            os.kill(process, number)


@pytest.mark.timeout(100, func_only=True)
@pytest.mark.parametrize("failing", [Cutover, CutoverBuckets])
def test_an_error_of_databases_or_buckets_ends_the_proof_of_the_others(shared_move, monkeypatch, failing):
    old, _ = shared_move

    def fail(_):
        raise BusyError("it was written to")

    def wait(proof):
        cancellation = getattr(proof, "session", proof).cancellation
        assert cancellation.wait(60)
        cancellation.check()

    for kind in (Cutover, CutoverBuckets):
        monkeypatch.setattr(kind, "prove", fail if kind is failing else wait)
    begun = time.monotonic()
    refused = call("cutover", "-c", "moveout.toml", "--hold", "--yes", "--compare-all")
    assert (refused.code, "it was written to" in refused.err) == (BusyError.exit_code, True), refused
    assert time.monotonic() - begun < 60
    run_sql(old, "INSERT INTO keyless VALUES ('the old side is in use')")


def test_nothing_that_was_acknowledged_is_lost_and_one_can_go_back(move, tmp_path):
    old, new = move
    assert call("keys", "init", "key").code == 0
    application = Application(old)
    exported = call("export", "-c", "moveout.toml")
    assert exported.code == 0, exported
    assert call("restore", "-c", "moveout.toml").code == 0
    (restored,) = fetch(new, "SELECT count(*) FROM log")
    with forked(["follow", "-c", "moveout.toml", "--json"], tmp_path) as follow:
        eventually(lambda: fetch(new, "SELECT count(*) FROM log") > [restored])
        foreseen = call("cutover", "-c", "moveout.toml", "--dry-run", "--hold")
        assert foreseen.code == 0, foreseen
        assert "ALTER DATABASE" in foreseen.out
        assert "would take app over from the moveout follow that is at work" in foreseen.out
        assert follow.process.is_alive()
        before = application.acknowledged
        switched = call("cutover", "-c", "moveout.toml", "--hold", "--yes", "--key", "key", "--json")
        ended = follow.end()
    assert switched.code == 0, switched
    handed_over = json.loads(follow.out.read_text())["result"]["handed_over"]
    assert (ended, handed_over) == (0, True), follow.err.read_text()
    application.wait()
    assert application.acknowledged > before > 0
    assert fetch(new, "SELECT sum(balance) FROM accounts") == [(5000,)]
    for table in ("log", "keyless"):
        assert fetch(new, f"SELECT count(*) FROM {table}") == [(application.acknowledged,)]
    assert fetch(new, "SELECT entries FROM totals") == fetch(old, "SELECT entries FROM totals")
    run_sql(
        new, "INSERT INTO log (note) VALUES ('the new side is in use')"
    )  # its sequence stands where the old one did
    assert switched.json["result"]["switched"]
    assert [entry.what.event for entry in custody_log.read(open_location("bundle")).entries][-1] == "switched"
    again = call("cutover", "-c", "moveout.toml", "--hold", "--yes", "--json")
    first, repeated = (answer.json["result"] for answer in (switched, again))
    assert repeated["switched_at"] == first["switched_at"]
    stages, stages_again = ([*answer["sources"][0]["seconds"]] for answer in (first, repeated))
    assert stages[0] == "drain"
    assert stages_again == stages, "they are printed as they came"
    late = call("follow", "-c", "moveout.toml")
    assert (late.code, "the switch was made" in late.err) == (2, True), late

    back = call("cutover", "-c", "moveout.toml", "--undo")
    assert (back.code, "the old side lacks what was written at the new one" in back.out) == (3, True), back
    assert "public.log: was written to since" in back.out
    run_sql(old, TRANSFER.format(1, 2))
    assert not (tmp_path / "moveout-cutover.json").exists()
    assert call("cutover", "-c", "moveout.toml", "--undo").code == 2


@pytest.mark.torture
def test_nothing_is_switched_where_both_sides_differ(shared_move):
    old, new = shared_move
    run_sql(new, "INSERT INTO accounts VALUES (99, 1)")
    unasked = call("cutover", "-c", "moveout.toml", "--hold")
    assert (unasked.code, Path("moveout-cutover.json").exists()) == (2, False), unasked
    refused = call("cutover", "-c", "moveout.toml", "--hold", "--yes")
    assert refused.code == 6, refused
    assert "public.accounts: has other rows" in refused.out
    assert "NOT SWITCHED" in refused.out
    run_sql(old, TRANSFER.format(1, 2))  # released
    run_sql(new, "DELETE FROM accounts WHERE id = 99")


def test_no_error_before_the_switch_has_the_exit_code_of_a_switch_with_gaps(move):
    old, new = move
    assert call("export", "-c", "moveout.toml").code == 0
    words = ["cutover", "-c", "moveout.toml", "--hold", "--yes", "--json"]
    early = call(*words)
    assert (early.code, early.json["error"]["switched"]) == (7, False), early
    assert call("restore", "-c", "moveout.toml").code == 0
    run_sql(old, "BEGIN; UPDATE accounts SET balance = 100 WHERE id = 9; PREPARE TRANSACTION 'open'")
    try:
        prepared = call(*words)
    finally:
        run_sql(old, "COMMIT PREPARED 'open'")
    assert (prepared.code, prepared.json["error"]["switched"]) == (5, False), prepared
    run_sql(old, TRANSFER.format(1, 2))  # released
    run_sql(new, "DELETE FROM accounts WHERE id = 1")
    assert call("cutover", "-c", "moveout.toml", "--dry-run").code == 6
    conflict = call(*words)
    assert (conflict.code, conflict.json["error"]["switched"]) == (6, False), conflict


def test_a_hold_that_has_ended_meanwhile_switches_nothing_and_one_whose_sessions_have_ended_is_released(
    shared_move, monkeypatch
):
    """Some holds end when the server is started anew; sessions end with the network."""
    old, _ = shared_move
    prove = Cutover.prove
    words = ["cutover", "-c", "moveout.toml", "--hold", "--yes", "--json"]

    def prove_and_lift(self):
        proven = prove(self)
        database = old.rpartition("/")[2]
        lift = f"ALTER DATABASE {database} RESET default_transaction_read_only"
        run_sql(old, f"BEGIN READ WRITE; {lift}; COMMIT")
        return proven

    def break_off(_):
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        run_sql(old, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        raise SourceUnreachableError("the network is away")

    for replaced, message in (
        (prove_and_lift, "can still be written to"),
        (break_off, "the network is away"),
    ):
        monkeypatch.setattr(Cutover, "prove", replaced)
        ended = call(*words)
        assert (ended.code, ended.json["error"]["switched"]) == (5, False), ended
        assert message in ended.json["error"]["message"]
        assert not Path("moveout-cutover.json").exists()
        run_sql(old, TRANSFER.format(1, 2))


def bring_over():
    """Export, and restore."""
    for command in ("export", "restore"):
        ended = call(command, "-c", "moveout.toml")
        assert ended.code == 0, ended


def after_early_comparison(monkeypatch, *writes):
    """Let a cutover write to databases once it has compared both sides, before the hold."""
    compare_early = Cutover.compare_early

    def compare_and_write(self):
        compare_early(self)
        for url, statement in writes:
            run_sql(url, statement)

    monkeypatch.setattr(Cutover, "compare_early", compare_and_write)


SALES = """
UPDATE goods SET n = -n WHERE id % 10 = 1; UPDATE goods SET code = 'new' WHERE id = 7; DELETE FROM goods WHERE id = 9;
INSERT INTO goods SELECT g, 'late', g FROM generate_series(3001, 5500) g;
"""


LOSE_SESSION = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'moveout hold'"
)


def test_what_was_compared_before_the_hold_is_not_read_whole_again(shared_move, monkeypatch):
    """Of tables that are written to afterwards the rows that the log names are compared. Where it does not name them,
    or somebody else writes to the destination, the table is read whole. The session of the question has ended: this
    comparison takes hours, and whoever forwards packets forgets an idle connection.
    """
    old, new = shared_move
    words = ["cutover", "-c", "moveout.toml", "--hold", "--yes", "--json"]
    with monkeypatch.context() as patch:
        after_early_comparison(patch, (new, "UPDATE accounts SET balance = 7 WHERE id = 3"))
        refused = call(*words)
    assert refused.code == 6, refused
    (source,) = refused.json["result"]["sources"]
    assert [finding["key"] for finding in source["differences"]] == ["public.accounts"]
    assert (
        source["read_whole"]["public.accounts"] == "somebody else may have written to it at the destination"
    )
    assert "public.goods" in source["compared_early"]
    run_sql(new, "UPDATE accounts SET balance = 100 WHERE id = 3")
    changed = "ALTER TABLE altered ADD COLUMN more int DEFAULT 1"  # no row is written
    written = (
        "TRUNCATE emptied; INSERT INTO whole VALUES ('a'); UPDATE numbered SET n = 1.5; DELETE FROM log; "
        + SALES
    )
    after_early_comparison(monkeypatch, (old, written), (old, changed), (new, changed), (old, LOSE_SESSION))
    switched = call(*words)
    assert switched.code == 0, switched
    (source,) = switched.json["result"]["sources"]
    assert source["compared_early"] == [f"public.{name}" for name in ("accounts", "goods", "log", "still")]
    assert source["read_whole"] == {
        "public.altered": "the destination's server says that it was changed, or counts anew",
        "public.emptied": "it was truncated",
        "public.keyless": "not all of its changes are in the log",
        "public.numbered": "equal values of its key may have several texts",
        "public.whole": "the log does not name its rows by a key",
    }
    assert "public.keyless" in source["tables"]
    assert source["tables"]["public.goods"][0] == 5499
    shown = call(*words[:-1]).out
    assert "compared before the hold: 4 tables" in shown
    assert "read whole under the hold: public.emptied: it was truncated" in shown
    undone = call("cutover", "-c", "moveout.toml", "--undo")
    assert (
        "nothing was written at the new side" in undone.out
    )  # the digests of the record are those of the rows


TAMPER = """
CREATE FUNCTION tamper() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.n := 5; RETURN new; END';
CREATE TRIGGER tamper BEFORE UPDATE ON goods FOR EACH ROW EXECUTE FUNCTION tamper();
ALTER TABLE goods ENABLE ALWAYS TRIGGER tamper;
"""


def test_a_wrong_row_is_found_whoever_made_it(shared_move, monkeypatch):
    """After the comparison before the hold: by a trigger, in a row that the log names; by a session that is still
    connected, whose writes its server may not have counted.
    """
    old, new = shared_move
    words = ["cutover", "-c", "moveout.toml", "--hold", "--yes", "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(change_writer, "without_user_triggers", lambda *_: nullcontext())
        after_early_comparison(patch, (new, TAMPER), (old, "UPDATE goods SET n = 6 WHERE id IN (4, 5)"))
        refused = call(*words)
    assert refused.code == 6, refused
    (source,) = refused.json["result"]["sources"]
    assert [finding["key"] for finding in source["differences"]] == ["public.goods"]
    assert re.fullmatch(
        r"its rows with id = [45], code = .* are not the same on both sides",
        source["read_whole"]["public.goods"],
    )
    run_sql(new, "DROP TRIGGER tamper ON goods; UPDATE goods SET n = 6 WHERE id IN (4, 5)")
    for module in ("cutover", "all_cutovers"):
        monkeypatch.setattr(f"migrate.follow.{module}.COUNTED_AFTER_SECONDS", 0)
    with psycopg.connect(new, autocommit=True, application_name="intruder") as session:
        compare_early = Cutover.compare_early

        def compare_and_write(cutover):
            session.execute("SELECT 1")
            compare_early(cutover)
            session.execute("UPDATE still SET id = 2")

        monkeypatch.setattr(Cutover, "compare_early", compare_and_write)
        refused = call(*words)
    assert refused.code == 6, refused
    (source,) = refused.json["result"]["sources"]
    assert [finding["key"] for finding in source["differences"]] == ["public.still"]
    assert "(intruder) is connected to the destination" in source["read_whole"]["public.still"]
    assert source["compared_early"] == []
    run_sql(new, "UPDATE still SET id = 1")


@pytest.mark.torture
def test_a_session_that_was_just_at_work_at_the_destination_is_waited_for(move, monkeypatch):
    """Then its server has counted what it wrote, and no table is read whole because of it."""
    old, new = move
    run_sql(old, MORE)
    bring_over()
    with psycopg.connect(new, autocommit=True, application_name="pool") as session:
        session.execute("UPDATE goods SET n = 5 WHERE id = 5")  # as it is
        compare_early = Cutover.compare_early

        def compare_and_ask(cutover):
            compare_early(cutover)
            session.execute("SELECT count(*) FROM goods")

        monkeypatch.setattr(Cutover, "compare_early", compare_and_ask)
        switched = call("cutover", "-c", "moveout.toml", "--hold", "--yes", "--json")
    assert switched.code == 0, switched
    (source,) = switched.json["result"]["sources"]
    assert "public.goods" in source["compared_early"]
    assert "public.keyless" in source["read_whole"]


def test_run_does_all_up_to_the_cutover_and_goes_on_where_it_was_killed(move, tmp_path):
    old, new = move
    application = Application(old)
    words = ["run", "-c", "moveout.toml", "--keep-following", "--json"]
    with forked(words, tmp_path):
        eventually((tmp_path / "bundle/tagmanifest-sha256.txt").exists)
    done = call("run", "-c", "moveout.toml")
    assert done.code == 0, done
    assert "Compared row by row: app." in done.out
    assert "Followed: app." in done.out
    assert "moveout cutover -c moveout.toml --hold" in " ".join(done.out.split())
    (arrived,) = fetch(new, "SELECT count(*) FROM log")
    with forked(words, tmp_path) as second:
        eventually(lambda: fetch(new, "SELECT count(*) FROM log") > [arrived])
        switched = call("cutover", "-c", "moveout.toml", "--hold", "--yes")
        ended = second.end()
    assert switched.code == 0, switched
    application.wait()
    assert fetch(new, "SELECT count(*) FROM log") == [(application.acknowledged,)]
    assert ended == 0, second.err.read_text()
    sentences = json.loads(second.out.read_text())["result"]["sentences"]
    assert "A cutover has begun, and goes on from here." in sentences
    run_sql(new, TRANSFER.format(1, 2))
    last = call("run", "-c", "moveout.toml")
    assert (last.code, "The switch was made at" in last.out) == (0, True), last
    cleaned = call("clean", "-c", "moveout.toml", "--changes", "--yes")
    assert cleaned.code == 0, cleaned
    assert fetch(old, "SELECT count(*) FROM pg_publication") == [(0,)]  # though the old side is held


def tag_bucket(client, bucket, value):
    client.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "n", "Value": value}]})


def test_buckets_of_the_case_are_switched_in_the_same_window(move, minio, other_minio, make_bucket, tmp_path):
    old, _new = move
    source, destination = make_bucket(minio), make_bucket(other_minio)
    source_client, destination_client = boto_client(minio.profile), boto_client(other_minio.profile)
    for key in ("kept", "changed", "deleted"):
        source_client.put_object(Bucket=source, Key=key, Body=b"first")
    with (tmp_path / "moveout.toml").open("a") as case:
        case.write(
            f'[[source]]\nname = "media"\nurl = "s3://{source}?profile={minio.profile}"\n[[destination]]\n'
            f'source = "media"\nurl = "s3://{destination}?profile={other_minio.profile}"\n'
        )
    tag_bucket(source_client, source, "first")
    assert call("run", "-c", "moveout.toml").code == 0
    tag_bucket(source_client, source, "second")
    source_client.put_object(Bucket=source, Key="changed", Body=b"second")
    source_client.put_object(Bucket=source, Key="new", Body=b"first")
    source_client.delete_object(Bucket=source, Key="deleted")
    words = ["cutover", "-c", "moveout.toml", "--hold", "--yes"]
    refused = call(*words)
    assert (refused.code, "bucket media: " in refused.err) == (6, True), refused
    run_sql(old, TRANSFER.format(1, 2))  # it was not held
    differs = call(*words, "--overwrite")
    assert (differs.code, "NOT SWITCHED" in differs.out) == (6, True), differs
    run_sql(old, TRANSFER.format(1, 2))  # it was released
    assert f"would sync media to s3://{destination}" in call(*words[:-1], "--dry-run").out
    switched = call(*words, "--overwrite", "--delete")
    assert switched.code == 0, switched
    assert "media  3 objects" in switched.out
    assert "media: the bucket's tagging: the destination has its own" in switched.err
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        run_sql(old, TRANSFER.format(1, 2))
    assert destination_client.get_object(Bucket=destination, Key="changed")["Body"].read() == b"second"
    (bucket,) = json.loads((tmp_path / "bundle/changes/cutover.json").read_text())["buckets"]
    assert (bucket["name"], bucket["objects"], bucket["problem"]) == ("media", 3, "")
    assert "what the new side of media has since" in " ".join(
        call("cutover", "-c", "moveout.toml", "--undo").out.split()
    )


OWN_TYPE = """
CREATE TYPE own; CREATE FUNCTION own_in(cstring) RETURNS own LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION own_out(own) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE own (INPUT = own_in, OUTPUT = own_out, LIKE = int4);
CREATE TABLE odd (id int PRIMARY KEY, v own); INSERT INTO odd VALUES (1, '1');
CREATE TABLE other_odd (id int PRIMARY KEY, v own); INSERT INTO other_odd VALUES (1, '1');
"""
"""Only a superuser may make such a type."""


def test_a_table_that_the_restore_left_out_stops_nothing_and_is_named(move, other_postgres, monkeypatch):
    monkeypatch.setattr("migrate.follow.all_cutovers._QUIET_SECONDS", 0.5)
    old, new = move
    run_sql(old, OWN_TYPE)
    login(other_postgres, "mover")
    run_sql(
        new, f"ALTER DATABASE {new.rpartition('/')[2]} OWNER TO mover; ALTER SCHEMA public OWNER TO mover"
    )
    run_sql(new, "GRANT SET ON PARAMETER session_replication_role TO mover")
    monkeypatch.setenv("MOVER_PASSWORD", other_postgres.password)
    case = Path("moveout.toml")
    case.write_text(case.read_text().replace(new, as_role(new, "mover")) + 'password = "env:MOVER_PASSWORD"')
    assert call("export", "-c", "moveout.toml").code == 0
    assert call("restore", "-c", "moveout.toml").code == 3
    run_sql(
        old, "INSERT INTO odd VALUES (2, '2'); TRUNCATE odd, other_odd; INSERT INTO other_odd VALUES (3, '3')"
    )
    run_sql(old, TRANSFER.format(1, 2))
    followed = call("follow", "-c", "moveout.toml", "--until-caught-up")
    assert (followed.code, "not followed" in followed.err) == (3, True), followed
    assert "the restore left out public.odd, public.other_odd" in " ".join(followed.out.split())
    assert fetch(new, "SELECT balance FROM accounts WHERE id = 1") == [(99,)]
    assert "left them out: public.odd, public.other_odd" in " ".join(
        call("status", "-c", "moveout.toml").out.split()
    )
    run_sql(new, f"{OWN_TYPE.partition('INSERT')[0]}; ALTER TABLE odd OWNER TO mover")  # by somebody who may
    foreseen = call("cutover", "-c", "moveout.toml", "--dry-run")
    assert "would switch app without public.odd, public.other_odd" in foreseen.out
    switched = call("cutover", "-c", "moveout.toml")
    assert switched.code == 3, switched
    assert "public.other_odd is MISSING at the new side" in switched.out
    assert "public.odd is MISSING" not in switched.out
    assert fetch(new, "SELECT count(*) FROM odd") == [(0,)]


def steps_of(synced):
    return {step["step"]: step["result"] for step in synced.json["result"]["move"]["steps"]}


def test_a_database_is_synced_to_another_one_without_a_bundle_of_ones_own(postgres, other_postgres, tmp_path):
    old, new = postgres.database(), other_postgres.database()
    run_sql(old, BANK)
    run_sql(postgres.database(), "CREATE TABLE of_another_application (a int)")
    pair, work = [f"app={old}", f"app={new}"], tmp_path / "work"
    words = ["sync", *pair, "--work", work]
    foreseen = call(*words, "--dry-run")
    assert (foreseen.code, "through " in foreseen.out, work.exists()) == (0, True, False), foreseen
    first = call(*words)
    assert (first.code, "Compared row by row: app." in first.out) == (0, True), first
    # With other databases in its case it would be another move.
    assert "moveout discover" not in first.out + first.err
    assert f"moveout cutover -c {work}/moveout.toml --hold" in " ".join(first.out.split())
    assert f"The working folder {work} takes" in " ".join(first.out.split())
    assert call(*words, "--dry-run").code == 0
    run_sql(old, TRANSFER.format(1, 2))
    again = call(*words, "--json")
    assert again.code == 0, again
    assert steps_of(again) == {"export": None, "verify": None, "restore": None, "follow": ANY}
    assert fetch(new, "SELECT count(*) FROM log") == [(1,)]
    run_sql(old, TRANSFER.format(1, 2))
    undo = tmp_path / "undo.json"
    switched = call(*words, "--cutover", "--hold", "--yes", "--undo-file", undo, "--json")
    assert switched.code == 0, switched
    assert switched.json["result"]["cutover"]["switched"]
    assert fetch(new, "SELECT count(*) FROM log") == [(2,)]
    assert call(*words, "--cutover").code == 0  # it is done
    case = ["-c", work / "moveout.toml"]
    assert call("cutover", *case, "--undo", "--undo-file", undo).code == 0
    assert call("clean", *case, "--changes", "--yes").code == 0
    other = other_postgres.database()
    assert "is of another move" in call("sync", f"app={old}", f"app={other}", "--work", work).err
    assert "--cutover and --dry-run only" in call(*words, "--delete").err
    assert "not of one kind" in call("sync", pair[0], "app=s3://bucket").err
    assert "are for databases" in call("sync", "a=s3://one", "b=s3://two", "--hold").err


def test_a_sync_to_a_database_that_takes_nothing_ends_before_its_export(postgres, other_postgres, tmp_path):
    old, new = postgres.database(), other_postgres.database()
    run_sql(old, BANK)
    run_sql(new, "CREATE TABLE strange (x int)")
    missing = f"{new}_missing"
    work = tmp_path / "work"
    for there, code, words in (
        (missing, 7, "→ add --create"),
        (new, 2, "it is not empty: it holds"),
        (old, 2, "it is the source app itself"),
        (new.replace("127.0.0.1", "127.0.0.9"), 5, "127.0.0.9"),
    ):
        foreseen = call("sync", f"app={old}", f"app={there}", "--work", work, "--dry-run")
        assert (foreseen.code, words.removeprefix("→ add --create") in foreseen.out) == (code, True), foreseen
        assert not work.exists()
        ended = call("sync", f"app={old}", f"app={there}", "--work", work)
        assert (ended.code, words in ended.err) == (code, True), ended
        assert not (work / "bundle/data").exists()
        shutil.rmtree(work)
    made = call("sync", f"app={old}", f"app={missing}", "--work", work, "--create")
    assert made.code == 0, made
    assert call("sync", f"app={old}", f"app={missing}", "--work", work).code == 0


def test_a_file_is_synced_to_another_one_by_delta_passes(tmp_path):
    words = [
        "sync",
        f"app=sqlite://{tmp_path}/old.db",
        f"app=sqlite://{tmp_path}/new.db",
        "--work",
        tmp_path / "work",
    ]
    with closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
        for number in range(3):
            old.execute("INSERT INTO t VALUES (?, 'x')", (number,))
            old.commit()
            done = call(*words)
            assert done.code == 0, done
            assert "The only bundle" not in done.out
    with closing(sqlite3.connect(tmp_path / "new.db")) as new:
        assert new.execute("SELECT id FROM t").fetchall() == [(0,), (1,), (2,)]


def test_a_sync_hashes_its_base_before_the_restore_which_compares_the_rows(tmp_path):
    """Where it had to leave something out, all is compared afterwards."""
    folder = tmp_path / "new"
    urls = [f"app=sqlite://{tmp_path}/old.db", f"app=sqlite://{folder}/app.db"]
    words = ["sync", *urls, "--work", tmp_path / "work", "--json"]
    with closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.executescript("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'x')")
    assert call(*words).code == 7
    exported = call("run", "-c", tmp_path / "work/moveout.toml")  # whatever the destination is like
    assert exported.code == 3
    [part] = (tmp_path / "work/bundle/data/app/tables").rglob("*.parquet")
    whole = part.read_bytes()
    part.write_bytes(whole[:-9] + b"x" + whole[-8:])
    damaged = call(*words)
    assert (damaged.code, part.name in str(steps_of(damaged)["verify"]["findings"])) == (6, True), damaged
    part.write_bytes(whole)
    folder.mkdir()
    done = call(*words)
    assert done.code == 0, done
    steps = steps_of(done)
    assert (list(steps), steps["verify"]["values"]) == (["export", "verify", "restore", "follow"], False)

    with closing(sqlite3.connect(tmp_path / "own.db")) as own:
        own.create_function("own", 1, lambda value: value, deterministic=True)
        own.executescript("CREATE TABLE t (v TEXT); INSERT INTO t VALUES ('x'); CREATE INDEX i ON t (own(v))")
    urls = [f"app=sqlite://{tmp_path}/own.db", f"app=sqlite://{folder}/own.db"]
    in_part = call("sync", *urls, "--work", tmp_path / "other", "--json")
    assert in_part.code == 3, in_part
    assert "INDEX i" in str(steps_of(in_part)["compare"]["compared"][0]["left_out"]), in_part


@pytest.mark.torture
def test_a_source_whose_slot_is_gone_is_kept_up_by_delta_passes(move):
    old, new = move
    bring_over()
    slots = "pg_replication_slots WHERE database = current_database()"
    run_sql(old, f"SELECT pg_drop_replication_slot(slot_name) FROM {slots}")
    run_sql(old, TRANSFER.format(1, 2))
    words = ["-c", "moveout.toml", "--until-caught-up"]
    stopped = call("follow", *words)
    assert (stopped.code, "moveout follow --delta" in " ".join(stopped.out.split())) == (3, True), stopped
    for _ in range(2):
        passed = call("follow", "--delta", *words)
        assert (passed.code, "delta pass" in passed.out) == (0, True), passed
    assert fetch(new, "SELECT count(*) FROM log") == [(1,)]
    status = call("status", "-c", "moveout.toml")
    assert (status.code, "kept up by delta passes: pass 2" in status.out) == (0, True), status
    run_sql(old, TRANSFER.format(2, 3))
    switched = call("cutover", "-c", "moveout.toml", "--hold", "--yes")
    assert switched.code == 0, switched
    assert fetch(new, "SELECT count(*) FROM log") == [(2,)]


@pytest.mark.torture
def test_a_column_that_only_the_source_has_is_named_with_what_to_do(move):
    """Of a table that is not followed, too."""
    old, new = move
    bring_over()
    run_sql(old, "ALTER TABLE keyless ADD COLUMN more int; INSERT INTO keyless VALUES ('a', 1)")
    words = ["cutover", "-c", "moveout.toml", "--hold", "--yes", "--json"]
    refused = call(*words)
    assert (refused.code, refused.json["error"]["switched"]) == (6, False), refused
    assert "have other definitions: column" in refused.json["error"]["message"]
    run_sql(new, "ALTER TABLE keyless ADD COLUMN more int")
    assert call(*words).code == 0

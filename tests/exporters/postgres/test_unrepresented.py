"""What neither the definitions nor the rows hold is recorded as lost, by name."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from scripts.postgresql import make_cluster
from scripts.process import free_port, start
from tests.exporters.postgres.databases import export_database, run_sql
from tests.tools.bundles import read_bundle

SCRIPT = """
DROP ROLE IF EXISTS tuner; CREATE ROLE tuner; GRANT SET ON PARAMETER log_statement TO tuner;
CREATE TABLE t (a int) TABLESPACE elsewhere; INSERT INTO t VALUES (1), (1); GRANT SELECT ON t TO tuner;
CREATE INDEX "i i" ON t (a) TABLESPACE elsewhere; CREATE MATERIALIZED VIEW m TABLESPACE elsewhere AS SELECT 1 AS a;
CREATE TABLE p (a int) PARTITION BY LIST (a) TABLESPACE elsewhere;
CREATE TABLE k (a int PRIMARY KEY); CREATE TABLE k1 (a int CONSTRAINT "own name" REFERENCES k)
  PARTITION BY LIST (a); CREATE TABLE k11 PARTITION OF k1 DEFAULT;
CREATE TABLE kp (a int CONSTRAINT key REFERENCES k) PARTITION BY LIST (a);
CREATE TABLE k2 PARTITION OF kp FOR VALUES IN (2); ALTER TABLE kp ATTACH PARTITION k1 FOR VALUES IN (1);
CREATE TABLE d (a int) PARTITION BY LIST (a);
CREATE TABLE d1 PARTITION OF d FOR VALUES IN (1); INSERT INTO d VALUES (1);
SET allow_system_table_mods = on; UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = 'd1'::regclass;
RESET allow_system_table_mods;
"""


def _open(directory: Path) -> Path:
    """A directory that every user can reach."""
    directory.mkdir(mode=0o755)
    return directory


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that keeps prepared transactions and logical slots: its URL without the database."""
    directory = Path(tempfile.mkdtemp(prefix="moveout-losses-"))
    directory.chmod(0o755)
    password, port = secrets.token_hex(8), free_port()
    cluster = make_cluster("losses", directory, password, lambda prefix: _open(directory / prefix))
    settings = ["max_prepared_transactions=2", "wal_level=logical", "allow_in_place_tablespaces=on"]
    child = start("losses", cluster.command(port, settings), log=directory / "log", user=cluster.user)
    url = f"postgresql://postgres@127.0.0.1:{port}/"
    try:
        child.wait_until(lambda: answers(url, password), seconds=30)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGPASSWORD", password)
            yield url
    finally:
        child.stop()
        shutil.rmtree(directory, ignore_errors=True)


def answers(url: str, password: str) -> bool:
    try:
        psycopg.connect(url + "postgres", password=password).close()
    except psycopg.OperationalError:
        return False
    return True


def test_what_is_of_the_server_and_what_is_broken_is_named(server, tmp_path):
    run_sql(server + "postgres", "CREATE TABLESPACE elsewhere LOCATION ''")
    run_sql(server + "postgres", "CREATE DATABASE app")
    url = server + "app"
    run_sql(url, SCRIPT)
    with pytest.raises(psycopg.errors.UniqueViolation):
        run_sql(url, "CREATE UNIQUE INDEX CONCURRENTLY broken ON t (a)")
    run_sql(url, "SELECT pg_create_logical_replication_slot('follower', 'pgoutput')")
    run_sql(url, "BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'in doubt'")
    assert export_database(url, tmp_path / "bundle").complete
    losses = {(loss.item, loss.property) for _, loss in read_bundle(tmp_path / "bundle").losses()}
    assert losses - {("roles", "password")} == {
        ("table public.d1", "partition"),
        ("index public.broken", "definition"),
        ("prepared transaction in doubt", "all of it"),
        ("replication slot follower", "all of it"),
        ("role tuner", "privilege on a parameter"),
        ('"public"."t"', "tablespace"),
        ('index public."i i"', "tablespace"),
        ("materialized view public.m", "tablespace"),
        ("table public.p", "tablespace"),
        ('constraint "own name" of table public.k1', "name"),
        ('constraint "own name" of table public.k11', "name"),
    }


def test_the_tablespace_of_a_database_is_named(server, tmp_path):
    run_sql(server + "postgres", "CREATE TABLESPACE apart LOCATION ''")
    run_sql(server + "postgres", "CREATE DATABASE moved TABLESPACE apart")
    run_sql(server + "moved", "CREATE TABLE t AS SELECT 1 AS a")
    assert export_database(server + "moved", tmp_path / "bundle").complete
    losses = {(loss.item, loss.property) for _, loss in read_bundle(tmp_path / "bundle").losses()}
    assert ("database moved", "tablespace") in losses

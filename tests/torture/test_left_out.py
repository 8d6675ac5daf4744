"""A restore that is killed at any of its steps, and repeated, names what one without a kill has left out."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from exporters.postgres import chunk_plan
from migrate.restore.mysql import restore_state as mysql_state
from migrate.restore.mysql.definitions import create_objects as mysql_define
from migrate.restore.mysql.rows import load_rows as mysql_rows
from migrate.restore.postgres import restore_state
from migrate.restore.postgres.definitions import after_rows, post_data
from migrate.restore.postgres.rows import load_rows
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres.databases import as_role, export_database, run_sql
from tests.exporters.postgres.test_resume import SMALL_CHUNK
from tests.restore.mysql.test_left_out import SOURCE as MYSQL_SOURCE
from tests.restore.postgres.test_left_out import SOURCE
from tests.tools.bundles import read_bundle, restore_from

pytestmark = [pytest.mark.torture, pytest.mark.timeout(1800)]


def put_in(name: str, function: Callable[..., None], *modules: ModuleType) -> None:
    """Replace a function of modules in this process, which is to be killed."""
    for module in modules:
        vars(module)[name] = function


def die_at(step, bundle, destination):
    """Restore, and be killed within the transaction of this step, or after the last one where there are fewer."""
    count, real, real_finish = 0, restore_state.mark_done, after_rows.finish

    def mark(*words):
        nonlocal count
        real(*words)
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def finish(*words):
        if step % 2:
            real_finish(*words)
        os.kill(os.getpid(), signal.SIGKILL)

    put_in("mark_done", mark, restore_state, load_rows, post_data)
    put_in("finish", finish, after_rows)
    restore_from(read_bundle(bundle), "app", destination, workers=2)


def die_at_mysql(step, bundle, destination):
    """The same of MySQL."""
    count, real, real_drop = 0, mysql_state.mark_done, mysql_state.drop_state

    def mark(connection, *names):
        nonlocal count
        real(connection, *names)
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def drop(destination):
        if step % 2:
            real_drop(destination)
        os.kill(os.getpid(), signal.SIGKILL)

    put_in("mark_done", mark, mysql_rows, mysql_define, mysql_state)
    put_in("drop_state", drop, mysql_state)
    restore_from(read_bundle(bundle), "app", destination, workers=2)


def kill(die, step: int, bundle: Path, destination: str) -> None:
    victim = multiprocessing.get_context("spawn").Process(target=die, args=(step, bundle, destination))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL


def test_postgresql(postgres, other_postgres, tmp_path, monkeypatch):
    url = postgres.database()
    run_sql(url, SOURCE)
    with monkeypatch.context() as patch:
        patch.setattr(chunk_plan, "CHUNK_BYTES", SMALL_CHUNK)
        assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    run_sql(other_postgres.url, f"CREATE ROLE boarder LOGIN PASSWORD '{other_postgres.password}'")
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)

    def fresh() -> str:
        made = other_postgres.database()
        name = made.rpartition("/")[2]
        run_sql(
            made,
            f"ALTER DATABASE {name} OWNER TO boarder; ALTER SCHEMA public OWNER TO boarder;"
            " GRANT SET ON PARAMETER session_replication_role TO boarder",
        )
        return as_role(made, "boarder")

    def restore(destination: str) -> tuple:
        outcome = restore_from(reader, "app", destination, workers=2)
        return outcome.findings, sorted(outcome.left_out)

    wanted = restore(fresh())
    assert (wanted[0], len(wanted[1])) == ((), 5)
    for step in (1, 2, 3, 5, 8, 13, 15, 16, 17, 18, 19, 998, 999):
        destination = fresh()
        kill(die_at, step, tmp_path / "bundle", destination)
        assert restore(destination) == restore(destination) == wanted, step


def test_mysql(mariadb, other_mariadb, tmp_path):
    url = mariadb.database()
    mysql.run_sql(url, MYSQL_SOURCE)
    assert mysql.export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")

    def restore(destination: str) -> tuple:
        outcome = restore_from(reader, "app", destination, workers=2)
        name = destination.rpartition("/")[2]
        return outcome.findings, sorted(entry.replace(name, "here") for entry in outcome.left_out)

    wanted = restore(other_mariadb.database())
    assert (wanted[0], len(wanted[1])) == ((), 2)
    for step in (1, 2, 3, 4, 5, 6, 7, 998, 999):
        destination = other_mariadb.database()
        kill(die_at_mysql, step, tmp_path / "bundle", destination)
        assert restore(destination) == restore(destination) == wanted, step

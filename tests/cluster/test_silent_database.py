"""A database server that falls silent while the workers of a cluster read it: as where one machine's threads do."""

import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from migrate.errors import INTERRUPTED, IncompleteError
from tests.cli.conftest import run
from tests.cli.test_silent_database import processes, send
from tests.cluster.conftest import committed
from tests.cluster.movements import made
from tests.cluster.test_transfer import by
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.waiting import eventually

pytestmark = pytest.mark.torture
TABLES = 8


@pytest.fixture
def old(servers, request):
    server = servers.postgres(f"silent-{abs(hash(request.node.name))}")
    yield server
    servers.end(server)


@pytest.fixture
def app(old):
    url = old.database()
    run_sql(url, made(TABLES))
    return url


def test_workers_wait_for_new_connections_to_a_server_that_has_answered_them(
    pair, old, app, location, tmp_path, begin
):
    assert run("export", f"app={app}", "--to", tmp_path / "first", *by(pair)).code == 0
    export = begin("export", f"app={app}", "--to", location, *by(pair), "--bwlimit", "2M")
    eventually(lambda: "snapshot app" in export.said)
    main = [old.child.popen.pid]
    send(signal.SIGSTOP, main)
    try:
        time.sleep(40)  # a new connection fails after 15 s
        assert export.popen.poll() is None, export.said
    finally:
        send(signal.SIGCONT, main)
    ended = export.end()
    assert ended.code == 0, ended.err
    assert "is given nothing more" not in ended.err


def test_a_silent_source_of_workers_holds_up_no_seal(pair, old, app, location, tmp_path, begin):
    deadline = datetime.now(UTC) + timedelta(seconds=75)
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[case]\ndeadline = {deadline.isoformat()}\nreserve = "30s"\n[limits]\nbwlimit = "300k"\n'
        f'[bundle]\nlocation = "{location}"\n[[source]]\nname = "app"\nurl = "{app}"\n'
    )
    export = begin("export", "-c", case, *by(pair))
    eventually(lambda: committed(location, "app") > 0 or export.popen.poll() is not None)
    pids = processes(old)
    send(signal.SIGSTOP, pids)
    try:
        ended = export.end(90)
    finally:
        send(signal.SIGCONT, {*pids, *processes(old)})
    assert datetime.now(UTC) < deadline, ended.err
    assert ended.code == IncompleteError.exit_code, ended.err
    assert "the bundle is sealed now, to leave before the deadline" in ended.out + ended.err


def test_ctrl_c_ends_an_export_whose_workers_wait(pair, old, app, location, begin):
    words = ("export", f"app={app}", "--to", location)
    export = begin(*words, *by(pair), "--bwlimit", "300k")
    eventually(lambda: committed(location, "app") > 0 or export.popen.poll() is not None)
    pids = processes(old)
    send(signal.SIGSTOP, pids)
    try:
        time.sleep(3)
        export.popen.send_signal(signal.SIGINT)
        assert export.end(30).code == INTERRUPTED
    finally:
        send(signal.SIGCONT, {*pids, *processes(old)})
    assert run(*words, *by(pair)).code == 0


def test_where_the_lead_loses_its_snapshot_the_workers_join_a_new_one(pair, old, app, location, begin):
    export = begin("export", f"app={app}", "--to", location, *by(pair), "--bwlimit", "1M")
    eventually(lambda: committed(location, "app") > 0 or export.popen.poll() is not None)
    assert committed(location, "app") < TABLES, "there is something left to read"
    fetch(
        app,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE 'moveout-%' AND datname = current_database()",
    )
    ended = export.end()
    assert ended.code == 0, ended.err
    assert ended.err.count("is read under a new snapshot") == 1
    assert "is given nothing more" not in ended.err

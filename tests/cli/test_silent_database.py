"""A server that is stopped for a while, as by a frozen machine: a line names it, and the command goes on to its end."""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from migrate.errors import INTERRUPTED, IncompleteError, UnreachableError
from tests.cli.conftest import MOVEOUT, result, run
from tests.follow.move_case import write_move_case
from tests.tools.clients import boto_client
from tests.tools.processes import killed_at_end
from tests.tools.waiting import SECONDS

pytestmark = pytest.mark.torture
ROWS = "CREATE TABLE t (id int PRIMARY KEY, b bytea)"
FILL = "INSERT INTO t SELECT g, sha512(g::text::bytea) || sha512((-g)::text::bytea) FROM generate_series(1, 100000) g"
MARIADB_ROWS = "CREATE TABLE t (id int PRIMARY KEY, b varchar(300))"
MARIADB_FILL = "INSERT INTO t SELECT seq, concat(sha2(seq, 512), sha2(-seq, 512)) FROM seq_1_to_100000"


def processes(server):
    pid = server.child.popen.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def send(number, pids):
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def run_with_stopped(server, begun, *words, lines=1, pids=()):
    """Run a command whose server stops once a line has ``begun`` in it, until a line names the server; return what it
    said. So many ``lines`` at most name it. ``pids``: those that stop, if not all.
    """
    with killed_at_end(
        [MOVEOUT, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        printed, named_after = [], None
        while not printed or begun not in printed[-1]:
            printed.append(process.stdout.readline())
            assert printed[-1], "".join(printed)
        pids = pids or processes(server)
        send(signal.SIGSTOP, pids)
        stopped_at = time.monotonic()
        try:
            while named_after is None and (line := process.stdout.readline()):
                printed.append(line)
                if "has not answered since" in line:
                    named_after = time.monotonic() - stopped_at
            time.sleep(30)
        finally:
            send(signal.SIGCONT, {*pids, *processes(server)})
        printed += process.stdout.readlines()
        code = process.wait()
    text = "".join(printed)
    assert code == 0, text
    assert named_after is not None, text
    assert named_after < SECONDS, text
    assert text.count("has not answered since") <= lines, text
    assert "answers again" in text
    return text


def make_rows(server, url):
    if url.startswith("mysql"):
        with server.connect(url.rpartition("/")[2]) as connection, connection.cursor() as cursor:
            for statement in (MARIADB_ROWS, MARIADB_FILL):
                cursor.execute(statement)
            connection.commit()
    else:
        with psycopg.connect(url) as connection:
            connection.execute(ROWS)
            connection.execute(FILL)
    return url


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_silent_source_and_a_silent_destination_are_named_and_waited_for(servers, tmp_path, kind):
    old, new = (getattr(servers, kind)(f"{side}-silent") for side in ("old", "new"))
    source, destination = make_rows(old, old.database()), new.database()
    slow = ("--bwlimit", "500k", "--workers", "2")
    printed = run_with_stopped(
        old, "export app", "export", f"app={source}", "--to", tmp_path / "bundle", *slow
    )
    assert source.rpartition("/")[0] + " has not answered since" in printed
    printed = run_with_stopped(
        new, "restore app", "restore", tmp_path / "bundle", f"app={destination}", *slow
    )
    assert destination.rpartition("/")[0] + " has not answered since" in printed
    agreed = result("verify", tmp_path / "bundle", "--against", f"app={destination}")
    assert agreed["compared"][0]["findings"] == []


@pytest.fixture
def sockets():
    """A directory for a server's socket: its path is short, and the server's own user writes there."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        Path(path).chmod(0o777)
        yield path


@pytest.mark.parametrize("by", ["tcp", "unix socket"])
def test_a_silent_source_holds_up_no_seal_before_the_deadline(servers, sockets, tmp_path, monkeypatch, by):
    name, settings = f"old-at-the-deadline-{by[:3]}", [f"unix_socket_directories={sockets}"]
    old = servers.postgres(name, settings=settings)
    source = make_rows(old, old.database())
    psycopg.connect(source, autocommit=True).execute("CREATE TABLE small AS SELECT 1 AS x").connection.close()
    if by == "unix socket":
        monkeypatch.setenv("PGPASSWORD", old.password)
        source = f"postgresql://postgres@/{source.rpartition('/')[2]}?host={sockets}&port={old.port}"
    deadline = datetime.now(UTC) + timedelta(seconds=60)
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[case]\ndeadline = {deadline.isoformat()}\nreserve = "30s"\n[limits]\nbwlimit = "100k"\n'
        f'[bundle]\nlocation = "bundle"\n[[source]]\nname = "app"\nurl = "{source}"\n'
    )
    with killed_at_end(
        [MOVEOUT, "export", "-c", case], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines = iter(process.stdout.readline, "")
        assert any("export app" in line for line in lines)
        pids = processes(old)
        send(signal.SIGSTOP, pids)
        try:
            output = "".join(lines)
            assert process.wait(timeout=60) == IncompleteError.exit_code, output
        finally:
            send(signal.SIGCONT, {*pids, *processes(old)})
    assert datetime.now(UTC) < deadline
    assert "the bundle is sealed now, to leave before the deadline" in output


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_server_that_is_silent_from_the_first_contact_on_is_given_up_when_it_was_said(
    servers, tmp_path, kind
):
    server = getattr(servers, kind)(f"never-{kind}")
    source = make_rows(server, server.database())
    pids = processes(server)
    send(signal.SIGSTOP, pids)
    try:
        ended = run("export", f"app={source}", "--to", tmp_path / "bundle")
    finally:
        send(signal.SIGCONT, {*pids, *processes(server)})
    ended_at = datetime.now(UTC)
    assert ended.code == UnreachableError.exit_code, ended.err
    assert "waits until it does" not in ended.err
    if kind == "mariadb":
        (until,) = re.findall(r"gives up at about (\d\d:\d\d:\d\d) UTC", ended.err)
        announced = datetime.fromisoformat(f"{ended_at:%Y-%m-%d}T{until}+00:00")
        off = abs(announced - ended_at)
        assert min(off, timedelta(days=1) - off) < timedelta(seconds=5)  # it may be midnight between them


def test_a_restore_waits_where_only_new_connections_have_no_answer(servers, tmp_path):
    """Those that are open copy all rows; then indexes and constraints need others."""
    old, new = (servers.postgres(f"{side}-shut") for side in ("old", "new"))
    source, destination = make_rows(old, old.database()), new.database()
    assert run("export", f"app={source}", "--to", tmp_path / "bundle").code == 0
    slow = ("--workers", "2", "--bwlimit", "2M")
    main = new.child.popen.pid
    printed = run_with_stopped(
        new, "restore app", "restore", tmp_path / "bundle", f"app={destination}", *slow, pids=[main]
    )
    assert destination.rpartition("/")[0] + " has not answered since" in printed
    agreed = result("verify", tmp_path / "bundle", "--against", f"app={destination}")
    assert agreed["compared"][0]["findings"] == []


def test_a_resync_names_a_silent_source_and_waits_for_it(servers, tmp_path, monkeypatch):
    old, new = (servers.postgres(f"resync-{side}", settings=["wal_level=logical"]) for side in ("old", "new"))
    source, destination = make_rows(old, old.database()), new.database()
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, source, destination)
    for command in ("export", "restore"):
        assert run(command, "-c", "moveout.toml").code == 0
    with psycopg.connect(source) as other:  # the resync waits for it, and so is seen to be at work
        other.execute("CREATE TABLE late (id int)")
        commit = threading.Timer(20, other.commit)
        commit.start()
        printed = run_with_stopped(old, "is in the way", "resync", "-c", "moveout.toml", "app:public.t")
        commit.join()
    assert source.rpartition("/")[0] + " has not answered since" in printed


@pytest.mark.parametrize("stopped", ["source", "destination"])
def test_a_silent_bucket_of_a_sync_is_named_and_waited_for(servers, stopped):
    servers_of = {side: servers.minio(f"sync-{side}-{stopped}") for side in ("source", "destination")}
    for server in servers_of.values():
        boto_client(server.profile).create_bucket(Bucket="photos")
    client = boto_client(servers_of["source"].profile)
    for number in range(240):
        client.put_object(Bucket="photos", Key=f"{number:02}", Body=os.urandom(2**20))
    urls = [f"s3://photos?profile={server.profile}" for server in servers_of.values()]
    printed = run_with_stopped(
        servers_of[stopped], "copy old", "sync", f"old={urls[0]}", f"new={urls[1]}", "--bwlimit", "4M"
    )
    assert f"s3://photos/?profile={servers_of[stopped].profile} has not answered" in printed


def test_ctrl_c_ends_a_command_whose_server_is_silent(servers, tmp_path):
    server = servers.postgres("silent-for-good")
    source = make_rows(server, server.database())
    command = [MOVEOUT, "export", f"app={source}", "--to", tmp_path / "bundle", "--workers", "2"]
    slow = [*command, "--bwlimit", "500k"]
    with killed_at_end(slow, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines = iter(process.stdout.readline, "")
        assert any("export app" in line for line in lines)
        pids = processes(server)
        send(signal.SIGSTOP, pids)
        try:
            assert any("has not answered since" in line for line in lines)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == INTERRUPTED
        finally:
            send(signal.SIGCONT, {*pids, *processes(server)})
    assert run(*command[1:]).code == 0


@pytest.mark.parametrize("side", ["source", "destination"])
def test_ctrl_c_ends_a_follow_at_once_whose_server_is_silent(servers, tmp_path, monkeypatch, side):
    sides = {
        name: servers.postgres(f"follow-{name}", settings=["wal_level=logical"])
        for name in ("source", "destination")
    }
    source, destination = (server.database() for server in sides.values())
    psycopg.connect(source, autocommit=True).execute("CREATE TABLE t (id int PRIMARY KEY)").connection.close()
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, source, destination)
    for command in ("export", "restore"):
        assert run(command, "-c", "moveout.toml").code == 0
    command = [MOVEOUT, "follow", "-c", "moveout.toml"]
    with killed_at_end(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert any("applied up to" in line for line in iter(process.stdout.readline, ""))
        pids = processes(sides[side])
        send(signal.SIGSTOP, pids)
        try:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=6) == 0
        finally:
            send(signal.SIGCONT, {*pids, *processes(sides[side])})
        assert "app: captured up to" in process.stdout.read()

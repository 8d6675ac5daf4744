"""A server that is killed while it is filled: the others arrive, and the same command completes it. A location is
waited for, and named.
"""

import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.cli.conftest import MOVEOUT, call, make_file
from tests.tools.clients import boto_client
from tests.tools.processes import kill_server, killed_at_end

CASE = """
[case]
name = "night"
[bundle]
location = "bundle"
[limits]
bwlimit = "300k"
[[source]]
name = "shop"
url = "{shop}"
[[source]]
name = "file"
url = "sqlite://{folder}/a.db"
[[destination]]
source = "shop"
url = "{new}"
[[destination]]
source = "file"
url = "sqlite://{folder}/b.db"
"""
ROWS = "SELECT count(*), md5(string_agg(t, '' ORDER BY id)) FROM people"


@pytest.fixture
def new(servers):
    server = servers.postgres("killed")
    yield server
    server.child.stop()


def has_table(server) -> bool:
    try:
        with psycopg.connect(server.url_of("shop")) as connection:
            return connection.execute("SELECT to_regclass('people')").fetchone() != (None,)
    except psycopg.OperationalError:
        return False


@pytest.mark.torture
def test_a_server_killed_in_restore_costs_its_own_sources_until_the_same_command_is_given(
    postgres, new, tmp_path
):
    shop = postgres.database()
    with psycopg.connect(shop, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE people AS SELECT g AS id, md5(g::text) || md5((g + 1)::text) AS t"
            " FROM generate_series(1, 10000) g"
        )
    make_file(tmp_path / "a.db")
    case = tmp_path / "moveout.toml"
    case.write_text(CASE.format(shop=shop, folder=tmp_path, new=new.url_of("shop")))
    words = [MOVEOUT, "run", "-c", case, "--create"]
    with killed_at_end(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("restore ─"):
                while process.poll() is None and not has_table(new):
                    time.sleep(0.05)
                kill_server(new)
    printed = "".join(lines)
    assert process.returncode == 3, printed
    assert "Up on the new host: 1 of 2 sources; not: shop." in printed
    assert "Traceback" not in printed
    state = call("status", case)
    assert (state.code, "on the new host: 1 of 2 sources up; not: shop" in state.out) == (3, True), state.out

    new.child.start_again(new.accepts)
    again = call("run", "-c", case, "--create")
    assert again.code == 0, again.out + again.err
    assert "Compared row by row: both sources." in again.out
    assert call("status", case).code == 0
    with psycopg.connect(shop) as old_side, psycopg.connect(new.url_of("shop")) as new_side:
        assert new_side.execute(ROWS).fetchall() == old_side.execute(ROWS).fetchall()


UNTIL = """
[case]
name = "night"
deadline = {deadline}
[bundle]
location = "s3://{bucket}/bundle?profile={profile}"
[limits]
bwlimit = "1M"
[[source]]
name = "file"
url = "sqlite://{folder}/a.db"
"""


@pytest.mark.torture
def test_a_location_killed_in_an_export_is_named_and_waited_for_no_longer_than_the_deadline(
    servers, tmp_path
):
    server = servers.minio("killed-location")
    client = boto_client(server.profile)
    client.create_bucket(Bucket="location")
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE t (b BLOB)")
        for _ in range(40):
            connection.execute("INSERT INTO t VALUES (randomblob(1000000))")
        connection.commit()
    deadline = datetime.now(UTC) + timedelta(seconds=90)
    case = tmp_path / "moveout.toml"
    case.write_text(
        UNTIL.format(
            deadline=deadline.isoformat(), bucket="location", profile=server.profile, folder=tmp_path
        )
    )
    words = [MOVEOUT, "export", "-c", case]
    with killed_at_end(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while "Contents" not in client.list_objects_v2(Bucket="location", Prefix="bundle/_work/file/"):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        kill_server(server)
        killed_at = time.monotonic()
        printed, told_after = [], None
        for line in process.stdout:
            printed.append(line)
            if told_after is None and "has not answered since" in line:
                told_after = time.monotonic() - killed_at
    assert process.returncode == 5, printed
    assert datetime.now(UTC) < deadline + timedelta(seconds=10)
    assert told_after is not None, "".join(printed)
    assert told_after < 20
    assert sum("has not answered since" in line for line in printed) <= 2, "not a line for each request"
    assert "→ check the endpoint and the network" in printed[-1]


@pytest.mark.torture
@pytest.mark.parametrize("stopped", ["location", "source"])
def test_a_server_that_is_silent_is_named_soon_and_waited_for(servers, tmp_path, stopped):
    server = servers.minio(f"silent-{stopped}")
    client = boto_client(server.profile)
    client.create_bucket(Bucket="photos")
    bucket = f"s3://photos{{}}?profile={server.profile}"
    if stopped == "location":
        with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
            connection.execute("CREATE TABLE t (b BLOB)")
            connection.executemany("INSERT INTO t VALUES (randomblob(1000000))", [()] * 40)
            connection.commit()
        words = [f"file=sqlite://{tmp_path}/a.db", "--to", bucket.format("/bundle")]
    else:
        for number in range(50):
            client.put_object(Bucket="photos", Key=f"{number:02}", Body=os.urandom(2 * 2**20))
        words = ["photos=" + bucket.format(""), "--to", tmp_path / "bundle"]
    command = [
        MOVEOUT,
        "export",
        "--bwlimit",
        "2M" if stopped == "source" else "1M",
        "--workers",
        "2",
        *words,
    ]
    with killed_at_end(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        time.sleep(6)
        assert process.poll() is None, process.stdout.read()
        os.kill(server.child.popen.pid, signal.SIGSTOP)
        stopped_at = time.monotonic()
        printed, told_after = [], None
        try:
            while told_after is None and (line := process.stdout.readline()):
                printed.append(line)
                if "has not answered since" in line:
                    told_after = time.monotonic() - stopped_at
        finally:
            os.kill(server.child.popen.pid, signal.SIGCONT)
        printed += process.stdout.readlines()
        code = process.wait()
    assert code == 0, "".join(printed)
    assert told_after is not None, "".join(printed)
    assert told_after < 40, "a request is sent every few seconds, and waits for 15"
    (line,) = [line for line in printed if "has not answered since" in line]
    assert "s3://photos" in line
    assert any("answers again" in line for line in printed)

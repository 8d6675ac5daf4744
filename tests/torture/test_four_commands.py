"""A whole host, from nothing to "all is up on the new host", by four commands: discover, doctor, run, status.

Nothing is edited but the addresses of the new servers and the deadline.
"""

import os
import re
import sqlite3
from dataclasses import dataclass

import psycopg
import pytest

from tests.tools.clients import boto_client
from tests.torture.command import moveout

pytestmark = pytest.mark.torture

POSTGRES = ("app", "billing", "analytics", "wiki", "Empty DB")
MARIADB = ("shop", "forum", "crm")
BUCKETS = [f"bucket-{number:02d}" for number in range(12)]
VERSIONED, EMPTY = BUCKETS[1], BUCKETS[2]
ROWS = 20_000


@dataclass(frozen=True)
class Host:
    """The URLs of a host's servers, and its directory."""

    postgres: str
    mariadb: str
    s3: str
    files: str

    @property
    def urls(self):
        return [self.postgres, self.mariadb, self.s3, self.files]


def host_of(servers, name, folder):
    """Start a host's servers."""
    postgres, mariadb = servers.postgres(f"{name}-pg"), servers.mariadb(f"{name}-my")
    folder.mkdir()
    return Host(
        postgres.url.rpartition("/")[0],
        mariadb.url.rpartition("/")[0],
        f"s3://?profile={servers.minio(f'{name}-s3').profile}",
        f"sqlite://{folder}",
    ), mariadb


def fill(host, mariadb):
    """Give the old host its data."""
    with psycopg.connect(f"{host.postgres}/postgres", autocommit=True) as connection:
        for name in POSTGRES:
            connection.execute(f'CREATE DATABASE "{name}"')
    for name in POSTGRES[:-1]:
        with psycopg.connect(f"{host.postgres}/{name}", autocommit=True) as connection:
            connection.execute(
                f"CREATE TABLE people AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, {ROWS}) g"
            )
            connection.execute("CREATE TABLE notes (id serial PRIMARY KEY, body text)")
    with mariadb.connect() as connection, connection.cursor() as cursor:
        for name in MARIADB:
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"USE {name}")
            cursor.execute("CREATE TABLE items (id INT PRIMARY KEY, t TEXT)")
            cursor.execute("INSERT INTO items SELECT seq, MD5(seq) FROM seq_1_to_5000")
        connection.commit()
    client = boto_client(host.s3.partition("=")[2])
    for name in BUCKETS:
        client.create_bucket(Bucket=name)
        if name == VERSIONED:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        for number in range(0 if name == EMPTY else 30):
            client.put_object(Bucket=name, Key=f"k/{number:03d}", Body=os.urandom(2000))
    for number in range(4):
        path = f"{host.files.removeprefix('sqlite://')}/f{number}.db"
        file = sqlite3.connect(path)
        file.execute("CREATE TABLE t (a, b)")
        file.executemany("INSERT INTO t VALUES (?, ?)", [(i, str(i)) for i in range(1000)])
        file.commit()
        file.close()


@pytest.fixture(scope="module")
def hosts(servers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    old, mariadb = host_of(servers, "old", folder / "old")
    new, _ = host_of(servers, "new", folder / "new")
    fill(old, mariadb)
    return old, new


def test_four_commands_move_a_whole_host(hosts, tmp_path, monkeypatch):
    old, new = hosts
    monkeypatch.chdir(tmp_path)
    found = moveout("discover", *old.urls, "--to", "moveout.toml")
    assert found.code == 0, found.said
    case = tmp_path / "moveout.toml"
    addresses = iter(new.urls)
    text, filled = re.subn(
        r'^to = ""$', lambda _: f'to = "{next(addresses)}"', case.read_text(), flags=re.MULTILINE
    )
    assert filled == 4
    case.write_text(text)
    examined = moveout("doctor", "-c", "moveout.toml", "--json")
    assert examined.code == 0, examined.said

    with psycopg.connect(f"{old.postgres}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE later")
    boto_client(old.s3.partition("=")[2]).create_bucket(Bucket="later-bucket")

    ran = moveout("run", "-c", "moveout.toml")
    assert ran.code == 0, ran.said
    assert "Compared row by row: all 24 sources." in ran.said
    assert re.search(r"not in this case.*later", ran.said, re.DOTALL), ran.said
    assert "later-bucket" in ran.said

    state = moveout("status", "-c", "moveout.toml")
    assert state.code == 0, state.said
    for name in POSTGRES[:-1]:
        with psycopg.connect(f"{new.postgres}/{name}") as connection:
            assert connection.execute("SELECT count(*) FROM people").fetchone() == (ROWS,)
    client = boto_client(new.s3.partition("=")[2])
    assert {bucket["Name"] for bucket in client.list_buckets()["Buckets"]} == set(BUCKETS)
    again = moveout("run", "-c", "moveout.toml")
    assert again.code == 0, again.said

"""The command as a user runs it: a process of its own."""

import contextlib
import functools
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import typer
from typer.testing import CliRunner

from migrate.cli import app
from tests.tools.clients import boto_client

MOVEOUT = Path(sys.executable).parent / "moveout"
ROOT = Path(__file__).parents[2]

SHOP = """
CREATE TABLE customers (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, name text NOT NULL, balance numeric(12,2));
CREATE TABLE orders (id bigint PRIMARY KEY, customer int REFERENCES customers, placed timestamptz, note text);
INSERT INTO customers (name, balance) SELECT 'customer ' || i, i * 1.25 FROM generate_series(1, 500) i;
INSERT INTO orders SELECT i, 1 + i % 500, 'infinity', CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE E'two\\nlines' END
  FROM generate_series(1, 2000) i;
CREATE INDEX ON orders (customer);
"""
KEYS = ("plain.txt", "sp ace/ä?%2F.bin", "line\nbreak", "empty")


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one object on stdout."""
        return json.loads(self.out)


def make_file(path, size_bytes=1):
    """Make a SQLite file of one row."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT zeroblob({size_bytes}) AS x")


def _here():
    """Return the current directory, and another one instead of the checkout: a restore leaves its reports there."""
    other = os.environ["XDG_STATE_HOME"]
    is_open = os.access(other, os.X_OK, effective_ids=True)  # not to a test that has become another user
    return other if is_open and Path().samefile(ROOT) else "."  # also of a directory that is gone


def run(*words, cwd=None, env=None, stdin=subprocess.DEVNULL):
    """Run moveout to its end."""
    done = subprocess.run(
        [MOVEOUT, *map(str, words)],
        cwd=cwd or _here(),
        env={**os.environ, **(env or {})},
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def call(*words, env=None, cwd=None):
    """Run moveout within this process, which saves the start of another one: a second of the processor."""
    with contextlib.chdir(cwd or _here()), CliRunner().isolation(env=env) as (out, err, _):
        try:
            code = command_line().main([*map(str, words)], prog_name="moveout")
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
        sys.stderr.flush()
        return Ended(code or 0, out.getvalue().decode(), err.getvalue().decode())


@functools.cache
def command_line():
    """The commands, each of which is built when it is called first: typer would build all of them at each call."""
    return typer.main.get_command(app)


def result(*words):
    """What a command that has to succeed within this process comes to."""
    ended = call(*words, "--json")
    assert ended.code == 0, ended.err
    return ended.json["result"]


def make_shop(postgres):
    """Make a small database, return its URL."""
    url = postgres.database()
    with psycopg.connect(url) as connection:
        connection.execute(SHOP)
    return url


@pytest.fixture
def shop(postgres):
    """The URL of a small database."""
    return make_shop(postgres)


def make_media(minio, bucket, large_bytes=2**24):
    """Fill a small bucket with odd keys, and one object of several parts; return its URL."""
    client = boto_client(minio.profile)
    for number, key in enumerate(KEYS):
        client.put_object(
            Bucket=bucket,
            Key=key,
            Body=b"" if key == "empty" else key.encode() * (number + 1),
            ContentType="text/x-odd",
            Metadata={"owner": "plaza"},
            Tagging="kind=test",
        )
    client.put_object(Bucket=bucket, Key="large.bin", Body=bytes(range(256)) * (large_bytes // 256))
    return f"s3://{bucket}?profile={minio.profile}"


@pytest.fixture
def media(minio, bucket):
    """The URL of a bucket that ``make_media`` has filled with small objects."""
    return make_media(minio, bucket, large_bytes=256)

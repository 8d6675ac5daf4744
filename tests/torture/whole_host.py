"""Whole hosts for trials of a whole move: servers of several databases and buckets, and a directory of SQLite files."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from scripts.mariadb import MariadbServer
from scripts.postgresql import PostgresServer
from scripts.servers import S3Server, Servers
from tests.tools.clients import boto_client

ROW_BYTES = 200


@dataclass(frozen=True)
class Contents:
    """What a host has: names, and how much. ``rows`` of each table, ``objects`` of each bucket."""

    postgres: tuple[str, ...]
    mariadb: tuple[str, ...]
    buckets: tuple[str, ...]
    files: tuple[str, ...]
    rows: int
    objects: int
    object_bytes: int
    empty: frozenset[str] = frozenset()
    versioned: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Host:
    """The servers of a host, and its directory."""

    postgres: PostgresServer
    mariadb: MariadbServer
    minio: S3Server
    folder: Path

    @classmethod
    def start(cls, servers: Servers, name: str, folder: Path) -> Host:
        """Start the servers of a host."""
        folder.mkdir()
        return cls(
            servers.postgres(f"{name}-pg"), servers.mariadb(f"{name}-my"), servers.minio(f"{name}-s3"), folder
        )

    def stop(self) -> None:
        """End the servers."""
        for server in (self.postgres, self.mariadb, self.minio):
            server.child.stop()

    @property
    def urls(self) -> list[str]:
        """The URLs of the servers and of the directory, as a user gives them."""
        return [
            self.postgres.url.rpartition("/")[0],
            self.mariadb.url.rpartition("/")[0],
            f"s3://?profile={self.minio.profile}",
            f"sqlite://{self.folder}",
        ]

    def fill(self, contents: Contents) -> None:
        """Give the host its data."""
        for name in contents.postgres:
            self.postgres.database(name)
            if name not in contents.empty:
                with psycopg.connect(self._database(name), autocommit=True) as connection:
                    connection.execute(
                        "CREATE TABLE people AS SELECT g AS id, (SELECT string_agg(md5(concat(g, n)), '')"
                        f" FROM generate_series(1, 6) n) AS name FROM generate_series(1, {contents.rows}) g"
                    )
                    connection.execute("CREATE TABLE notes (id serial PRIMARY KEY, body text)")
        with self.mariadb.connect() as connection, connection.cursor() as cursor:
            for name in contents.mariadb:
                cursor.execute(f"CREATE DATABASE {name}")
                cursor.execute(f"USE {name}")
                cursor.execute("CREATE TABLE items (id INT PRIMARY KEY, t TEXT)")
                cursor.execute(
                    f"INSERT INTO items SELECT seq, CONCAT(SHA2(seq, 512), SHA2(CONCAT(seq, '{name}'), 256))"
                    f" FROM seq_1_to_{contents.rows}"
                )
                cursor.execute("CREATE TABLE secret AS SELECT 1 AS i")
        client = boto_client(self.minio.profile)
        for name in contents.buckets:
            client.create_bucket(Bucket=name)
            if name in contents.versioned:
                client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
            for number in range(0 if name in contents.empty else contents.objects):
                client.put_object(
                    Bucket=name, Key=f"k/{number:03d} ä", Body=os.urandom(contents.object_bytes)
                )
        for name in contents.files:
            file = sqlite3.connect(self.folder / name)
            file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB)")
            file.executemany(
                "INSERT INTO t (x) VALUES (?)", ((os.urandom(ROW_BYTES),) for _ in range(contents.rows))
            )
            file.commit()
            file.close()

    def contents(self, contents: Contents) -> dict[str, Any]:
        """Return what the host has of that, read without moveout: by names, sums of databases and ETags of objects."""
        kinds: list[tuple[str, Iterable[str], Callable[[str], Any]]] = [
            ("postgres", set(contents.postgres) - contents.empty, self._sum_postgres),
            ("mariadb", contents.mariadb, self._sum_mariadb),
            ("bucket", contents.buckets, self._etags),
            ("file", contents.files, self._sum_sqlite),
        ]
        return {f"{kind} {name}": _tried(read, name) for kind, names, read in kinds for name in names}

    def _database(self, name: str) -> str:
        return f"{self.urls[0]}/{name}"

    def _sum_postgres(self, name: str) -> Any:
        with psycopg.connect(self._database(name)) as connection:
            query = "SELECT count(*), md5(string_agg(p::text, ',' ORDER BY id)) FROM people p"
            return connection.execute(query).fetchall()

    def _sum_mariadb(self, name: str) -> Any:
        with self.mariadb.connect(name) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT COUNT(*), SUM(CRC32(CONCAT(id, t))), (SELECT COUNT(*) FROM secret) FROM items"
            )
            return cursor.fetchall()

    def _etags(self, name: str) -> Any:
        listed = boto_client(self.minio.profile).list_objects_v2(Bucket=name)
        return [(entry["Key"], entry["ETag"]) for entry in listed.get("Contents", ())]

    def _sum_sqlite(self, name: str) -> Any:
        file = sqlite3.connect(f"file:{self.folder / name}?mode=ro", uri=True)
        try:
            return hashlib.md5(
                b"".join(x for (x,) in file.execute("SELECT x FROM t ORDER BY id"))
            ).hexdigest()
        finally:
            file.close()


def _tried(read: Callable[[str], Any], name: str) -> Any:
    try:
        return read(name)
    except Exception as error:
        return type(error).__name__

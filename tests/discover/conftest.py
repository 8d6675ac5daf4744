"""An old host with several databases on one server each, several buckets, and a directory of SQLite files."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from migrate.storage.s3.access.minio_accounts import Accounts
from migrate.storage.s3.client import parse
from scripts.mariadb import MariadbServer
from scripts.postgresql import PostgresServer
from scripts.servers import S3Server, Servers
from tests.tools.clients import boto_client

READER = "reader"
PASSWORD = "only for tests"
VISIBLE_TO_ALL = "arn:aws:s3:::*"


@dataclass(frozen=True, slots=True)
class OldHost:
    """The servers, URLs of whole servers, and what a limited account needs."""

    postgres: PostgresServer
    mariadb: MariadbServer
    minio: S3Server
    files: Path
    limited: dict[str, str]
    """The environment of accounts that may not read everything."""

    @property
    def pg(self) -> str:
        return f"postgresql://postgres@{self.postgres.host}:{self.postgres.port}"

    @property
    def my(self) -> str:
        return f"mysql://moveout@{self.mariadb.host}:{self.mariadb.port}"

    @property
    def s3(self) -> str:
        return f"s3://?profile={self.minio.profile}"


@pytest.fixture(scope="session")
def old_host(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldHost]:
    postgres = servers.postgres("discovered-postgres")
    mariadb = servers.mariadb("discovered-mariadb")
    minio = servers.minio("discovered-minio")
    fill_postgres(postgres)
    fill_mariadb(mariadb)
    fill_buckets(minio)
    files = tmp_path_factory.mktemp("srv") / "app"
    fill_files(files)
    yield OldHost(postgres, mariadb, minio, files, limited_accounts(minio))
    servers.end(postgres)


def fill_postgres(server: PostgresServer) -> None:
    for name in ("app", "Odd Name*", "empty", "locked", "closed"):
        server.database(name)
    server.execute("CREATE TABLE customers AS SELECT i FROM generate_series(1, 1000) i", "app")
    server.execute("CREATE TABLE secrets (i int); CREATE TABLE own (i int)", "app")
    server.execute("ALTER TABLE own ENABLE ROW LEVEL SECURITY", "app")
    server.execute("CREATE TABLE t (i int)", "Odd%20Name%2A")
    server.execute(f"CREATE ROLE {READER} LOGIN PASSWORD '{PASSWORD}'")
    server.execute(f"GRANT SELECT ON customers, own TO {READER}", "app")
    server.execute("REVOKE CONNECT ON DATABASE locked FROM PUBLIC")
    server.execute("ALTER DATABASE closed ALLOW_CONNECTIONS false")


def fill_mariadb(server: MariadbServer) -> None:
    for name in ("app", "blog"):
        server.database(name)
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE app.orders AS SELECT 1 AS i")
        cursor.execute("CREATE TABLE app.hidden (i int)")
        cursor.execute(f"CREATE USER {READER} IDENTIFIED BY '{PASSWORD}'")
        cursor.execute(f"GRANT SELECT ON app.orders TO {READER}")
        cursor.execute(f"GRANT INSERT ON app.hidden TO {READER}")


def fill_buckets(server: S3Server) -> None:
    client = boto_client(server.profile)
    for name in ("media", "kept", "bare", "forbidden"):
        client.create_bucket(Bucket=name)
    client.create_bucket(Bucket="sealed", ObjectLockEnabledForBucket=True)
    client.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    for key in ("a", "b"):
        client.put_object(Bucket="media", Key=key, Body=b"12345")
        client.put_object(Bucket="kept", Key="same", Body=b"12345")


def fill_files(root: Path) -> None:
    (root / "data" / "deep").mkdir(parents=True)
    for path in (root / "main.db", root / "data" / "deep" / "no-ending"):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE t (i)")
    (root / "data" / "photo.jpg").write_bytes(b"x" * 1000)
    (root / "data" / "photo2.jpg").write_bytes(b"x" * 500)
    (root / "readme.txt").write_bytes(b"x" * 10)
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    (root / "linked").symlink_to(elsewhere)


def limited_accounts(server: S3Server) -> dict[str, str]:
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["s3:*"], "Resource": [VISIBLE_TO_ALL]},
            {
                "Effect": "Deny",
                "Action": ["s3:ListBucket", "s3:GetObject"],
                "Resource": ["arn:aws:s3:::forbidden*"],
            },
        ],
    }
    return {**s3_account(server, "limited", policy), "PGPASSWORD": PASSWORD, "MYSQL_PWD": PASSWORD}


def only_media(server: S3Server) -> dict[str, str]:
    """Return the environment of an account that may read one bucket, and list none."""
    allowed = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{VISIBLE_TO_ALL[:-1]}media/*"]}
    return s3_account(server, "only-media", {"Version": "2012-10-17", "Statement": [allowed]})


def s3_account(server: S3Server, name: str, policy: dict[str, Any]) -> dict[str, str]:
    accounts = Accounts(parse(f"s3://none?profile={server.profile}"))
    made = accounts.add(name, policy, datetime.now(UTC) + timedelta(days=1))
    return {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": made.access_key,
        "AWS_SECRET_ACCESS_KEY": made.secret_key,
    }

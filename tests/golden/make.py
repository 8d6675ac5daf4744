"""Write the golden bundle anew: ``python -m tests.golden.make``. Only where a decision in docs/FORMAT.md says so.

It holds a PostgreSQL, a MariaDB and a SQLite database and a bucket with versions; it has excluded objects (gaps) and
losses, and is signed.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from scripts.servers import Servers
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres
from tests.tools.clients import boto_client

FOLDER = Path(__file__).parent
BUNDLE = FOLDER / "bundle"
PUBLIC_KEY = FOLDER / "host.key.pub"
POSTGRES = """
CREATE SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('sad', 'happy');
CREATE TABLE shop."Payments" (
  id bigint PRIMARY KEY, paid timestamptz, amount numeric(12,2), rate double precision, note text, tags text[],
  token uuid, extra jsonb, during tstzrange, mood shop.mood, raw bytea, took interval, doubled bigint
    GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO shop."Payments" VALUES
  (1, '2024-02-29 12:00+01', 19.99, 0.1, 'first', '{a,b}', '6f1e7a52-8f6c-4d0e-9a39-0d1c2b3a4e5f', '{"via": "card"}',
    '[2024-01-01 00:00Z,)', 'happy', '\\x00ff', '1 day 2 hours'),
  (2, 'infinity', 'NaN', 'Infinity', '', NULL, NULL, NULL, 'empty', 'sad', '', NULL),
  (3, NULL, NULL, NULL, NULL, '{}', NULL, '[1, 2]', NULL, NULL, NULL, NULL);
CREATE TABLE shop.nothing (a int, b text);
SELECT lo_from_bytea(4711, 'a large object');
"""
MARIADB = """
CREATE TABLE goods (id int unsigned PRIMARY KEY, price decimal(8,2), sold date, kind enum('a','b'), code binary(4));
INSERT INTO goods VALUES (1, 9.99, '2024-02-29', 'a', x'00ff00ff');
SET sql_mode = ''; INSERT INTO goods VALUES (2, NULL, '0000-00-00', 'b', NULL);
"""
SQLITE = """
CREATE TABLE "Notes" (id INTEGER PRIMARY KEY, text TEXT, score REAL);
INSERT INTO "Notes" VALUES (1, 'first', 0.5), (2, x'00ff', 'not a number'), (3, NULL, 2.0);
"""


def fill_bucket(profile: str) -> str:
    """A bucket with old versions, a delete marker, a large object and one that is excluded."""
    client = boto_client(profile)
    client.create_bucket(Bucket="media")
    client.put_bucket_versioning(Bucket="media", VersioningConfiguration={"Status": "Enabled"})
    client.put_object(
        Bucket="media", Key="photos/1.jpg", Body=b"a photo", ContentType="image/jpeg", Tagging="a=b"
    )
    client.put_object(Bucket="media", Key="photos/1.jpg", Body=b"a better photo", Metadata={"who": "me"})
    client.put_object(Bucket="media", Key="gone", Body=b"deleted later")
    client.delete_object(Bucket="media", Key="gone")
    client.put_object(Bucket="media", Key="sp ace/ä?%2F", Body=b"")
    client.put_object(Bucket="media", Key="tmp/scratch", Body=b"not wanted")
    return f"s3://media?profile={profile}"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="golden") as name, Servers(Path(name) / "servers") as servers:
        folder = Path(name)
        os.environ.update(servers.environment)
        app, shop = servers.postgres("old-postgres").database(), servers.mariadb("old-mariadb").database()
        postgres.run_sql(app, POSTGRES)
        mysql.run_sql(shop, MARIADB)
        with closing(sqlite3.connect(folder / "notes.db")) as connection:
            connection.executescript(SQLITE)
        media = fill_bucket(servers.minio("old-minio").profile)
        moveout = str(Path(sys.executable).with_name("moveout"))
        subprocess.run([moveout, "keys", "init", "host.key", "--name", "host"], cwd=folder, check=True)
        sources = [f"app={app}", f"shop={shop}", f"notes=sqlite://{folder}/notes.db", f"media={media}"]
        subprocess.run(
            [moveout, "export", *sources, "--to", "bundle", "--key", "host.key", "--exclude", "tmp/**"],
            cwd=folder,
            check=True,
        )
        shutil.rmtree(BUNDLE, ignore_errors=True)
        shutil.copytree(folder / "bundle", BUNDLE)
        shutil.copy(folder / PUBLIC_KEY.name, PUBLIC_KEY)


if __name__ == "__main__":
    main()

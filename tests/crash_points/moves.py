"""What each command does to a small source, and what has to be there at its end."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.custody.signing import keys
from migrate.storage.registry import open_location
from tests.cli.conftest import call
from tests.export.sources import fingerprint
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres
from tests.exporters.sqlite import databases as sqlite
from tests.tools.clients import boto_client

OF_THE_RUN = {
    layout.REPORT, layout.BUNDLE_META, layout.BAG_INFO, layout.TAG_MANIFEST, layout.MANIFEST, layout.FILES,
    layout.RECONCILIATION, layout.CATALOG,
}  # fmt: skip
"""Files that say when, or at which moment of the source, something was read; and those with their digests."""
TABLES = """
CREATE TABLE shops (id INTEGER PRIMARY KEY, name VARCHAR(40) NOT NULL UNIQUE);
CREATE TABLE orders (id INTEGER PRIMARY KEY, shop INTEGER REFERENCES shops (id), note VARCHAR(80));
CREATE INDEX by_shop ON orders (shop);
CREATE VIEW busy AS SELECT shop, count(*) AS orders FROM orders GROUP BY shop;
"""
ROWS = "".join(f"INSERT INTO shops VALUES ({number}, 'shop {number}');" for number in range(3)) + "".join(
    f"INSERT INTO orders VALUES ({number}, {number % 3}, 'note {number}');" for number in range(40)
)
OBJECTS = {f"images/{number}.png": b"%d" % number * 50 for number in range(4)} | {
    "large.bin": bytes(9 * 2**20)
}


@dataclass
class Move(ABC):
    """One command. ``begin`` makes what it begins with, anew for each try, and returns its words."""

    directory: Path
    servers: dict[str, Any]
    words: list[str] = field(default_factory=list)
    name: str = ""
    bucket: str = ""
    end_codes = (0,)
    """The exit codes of the command that is given again."""

    @abstractmethod
    def begin(self, number: int) -> None:
        """Make a fresh start, and set ``words``."""

    @abstractmethod
    def outcome(self) -> object:
        """What is there afterwards, whatever happened on the way."""


def content(location: str) -> dict[str, str]:
    files = fingerprint(open_location(location))
    return {key: digest for key, digest in files.items() if key not in OF_THE_RUN}


def make_file(directory: Path) -> str:
    """Make the source file, unless it is there; return its URL."""
    path = directory / "app.db"
    if not path.exists():
        sqlite.run_sql(path, TABLES + ROWS)
    return sqlite.url_of(path)


def make_bundle(url: str, location: Path) -> Path:
    if not location.exists():
        done = call("export", f"app={url}", "--to", location)
        assert done.code == 0, done.err
    return location


class ExportSqlite(Move):
    """A file into a directory."""

    def begin(self, number: int) -> None:
        self.location = self.directory / f"bundle-{number}"
        self.words = [
            "export",
            f"app={make_file(self.directory)}",
            "--to",
            str(self.location),
            "--workers",
            "1",
        ]

    def outcome(self) -> object:
        left = [info.key for info in open_location(str(self.location)).list("_work/")]
        return content(str(self.location)), left, call("verify", self.location, "--level", "full").code


class ExportAgain(ExportSqlite):
    """The same again into a bundle that lacks a damaged table and a file that is not there: it stays as it is."""

    end_codes = (3,)

    def begin(self, number: int) -> None:
        self.location = self.directory / f"bundle-{number}"
        sealed, late = self.directory / "sealed", self.directory / "late.db"
        late.unlink(missing_ok=True)
        sources = [f"app={self.first()}", f"late={sqlite.url_of(late)}"]
        if not sealed.exists():
            assert call("export", *sources, "--to", sealed).code == 3
        shutil.copytree(sealed, self.location)
        self.words = ["export", *sources, "--to", str(self.location), "--workers", "1"]

    def first(self) -> str:
        """Return the URL of the first source, a table of which cannot be read."""
        url, path = make_file(self.directory), self.directory / "app.db"
        with closing(sqlite3.connect(path)) as connection:
            query = "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = 'shops'"
            root, page_bytes = connection.execute(query).fetchone()
        with path.open("r+b") as file:
            file.seek((root - 1) * page_bytes)
            file.write(b"\xff" * page_bytes)
        return url

    def outcome(self) -> object:
        files = fingerprint(open_location(str(self.location)))
        left = [info.key for info in open_location(str(self.location)).list("_work/")]
        return files, layout.LEASE in left, call("verify", self.location, "--level", "full").code


class ExportMore(ExportAgain):
    """The same, when the file has come: the bundle goes on under another id."""

    end_codes = (0,)

    def first(self) -> str:
        return make_file(self.directory)

    def begin(self, number: int) -> None:
        super().begin(number)
        sqlite.run_sql(self.directory / "late.db", TABLES + ROWS)

    def outcome(self) -> object:
        return ExportSqlite.outcome(self), self.continued()

    def continued(self) -> object:
        """The ids that the bundle continues, and whether it has another one."""
        first, info = (
            BundleReader(open_location(str(path))).info for path in (self.directory / "sealed", self.location)
        )
        return info.continues == [first.id], info.id != first.id


class ExportBucket(ExportSqlite):
    """Objects into a bucket: one of them by parts."""

    def begin(self, number: int) -> None:
        profile = self.servers["minio"].profile
        client = boto_client(profile)
        if number == 0:
            self.name = f"crash-{secrets.token_hex(4)}"
            for bucket in (self.name, f"{self.name}-bundles"):
                client.create_bucket(Bucket=bucket)
            for key, data in OBJECTS.items():
                client.put_object(Bucket=self.name, Key=key, Body=data)
        self.location = f"s3://{self.name}-bundles/{number}?profile={profile}"
        source = f"media=s3://{self.name}?profile={profile}"
        self.words = ["export", source, "--to", self.location, "--workers", "1"]


class Transfer(Move):
    """A bundle from a directory to another one."""

    def begin(self, number: int) -> None:
        bundle = make_bundle(make_file(self.directory), self.directory / "bundle")
        self.copy = self.directory / f"copy-{number}"
        self.words = ["transfer", str(bundle), str(self.copy), "--workers", "1"]

    def outcome(self) -> object:
        left = [info.key for info in open_location(str(self.copy)).list("_work/")]
        return fingerprint(open_location(str(self.copy))), left, call("verify", self.copy).code


class RestoreSqlite(Move):
    """A bundle into a new file."""

    def begin(self, number: int) -> None:
        bundle = make_bundle(make_file(self.directory), self.directory / "bundle")
        self.path = self.directory / f"new-{number}.db"
        self.words = ["restore", str(bundle), f"app={sqlite.url_of(self.path)}", "--workers", "1"]

    def outcome(self) -> object:
        return sqlite.everything(self.path), sqlite.schema_of(self.path)


_LARGE_POSTGRES = """
CREATE TABLE large (id int PRIMARY KEY, text text);
INSERT INTO large SELECT n, repeat(md5(n::text), 128) FROM generate_series(1, 300) AS s(n);
CREATE INDEX large_text ON large (left(text, 9));
"""
"""The key of such a table is made of an index, a step of its own."""


class RestorePostgres(Move):
    """A bundle into an empty database."""

    def begin(self, number: int) -> None:
        server = self.servers["postgres"]
        bundle = self.directory / "bundle"
        if not bundle.exists():
            source = server.database()
            others = "CREATE SEQUENCE tickets START 7; SELECT nextval('tickets')"
            postgres.run_sql(source, TABLES + ROWS + _LARGE_POSTGRES + others)
            make_bundle(source, bundle)
        self.url = server.database()
        self.words = ["restore", str(bundle), f"app={self.url}", "--workers", "1"]

    def outcome(self) -> object:
        return _without_random_words(postgres.dump(self.url))


class RestoreMariadb(Move):
    """The same with MariaDB."""

    def begin(self, number: int) -> None:
        server = self.servers["mariadb"]
        bundle = self.directory / "bundle"
        if not bundle.exists():
            source = server.database()
            mysql.run_sql(source, TABLES + ROWS)
            make_bundle(source, bundle)
        self.url = server.database()
        self.words = ["restore", str(bundle), f"app={self.url}", "--workers", "1"]

    def outcome(self) -> object:
        return mysql.definitions(self.url), mysql.checksums(self.url)


class RestoreBucket(Move):
    """Objects of a bundle into a bucket."""

    def begin(self, number: int) -> None:
        profile = self.servers["minio"].profile
        client = boto_client(profile)
        bundle = self.directory / "bundle"
        if number == 0:
            self.name = f"crash-{secrets.token_hex(4)}"
            client.create_bucket(Bucket=self.name)
            for key, data in OBJECTS.items():
                client.put_object(Bucket=self.name, Key=key, Body=data, Metadata={"owner": "shop"})
            done = call("export", f"media=s3://{self.name}?profile={profile}", "--to", bundle)
            assert done.code == 0, done.err
        self.bucket = f"{self.name}-{number}"
        client.create_bucket(Bucket=self.bucket)
        self.words = self.command(bundle, f"s3://{self.bucket}?profile={profile}")

    def command(self, bundle: Path, destination: str) -> list[str]:
        return ["restore", str(bundle), f"media={destination}", "--workers", "1"]

    def outcome(self) -> object:
        client = boto_client(self.servers["minio"].profile)
        rows = client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        names = [
            row["Key"] for row in rows if not row["Key"].startswith(".moveout-sync/")
        ]  # the record of a sync
        heads = {name: client.head_object(Bucket=self.bucket, Key=name) for name in names}
        uploads = client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return {key: (head["ETag"], head["Metadata"]) for key, head in heads.items()}, uploads


class Sync(RestoreBucket):
    """Objects of a bucket into another one, without a bundle."""

    def command(self, bundle: Path, destination: str) -> list[str]:
        source = f"media=s3://{self.name}?profile={self.servers['minio'].profile}"
        return ["sync", source, f"media={destination}", "--workers", "1"]


class Erase(Move):
    """A signed bundle is removed, against the missing receipt."""

    def begin(self, number: int) -> None:
        key = self.directory / "host"
        if not key.exists():
            keys.create(key, "host", None)
            bundle = make_bundle(make_file(self.directory), self.directory / "bundle")
            done = call("sign", bundle, "--key", key)
            assert done.code == 0, done.err
        self.location = self.directory / f"copy-{number}"
        shutil.copytree(self.directory / "bundle", self.location)
        self.words = ["erase", str(self.location), "--key", str(key), "--override", "a test", "--yes"]

    def outcome(self) -> object:
        shown = call("custody", "show", self.location, "--json")
        events = [entry["event"] for entry in shown.json["result"]["entries"]]
        names = {path.name for path in self.location.rglob("*") if path.is_file()}
        # What its signer says of the erasure has a random name, and may lie there twice: of the dead run, too.
        return {name for name in names if not name.startswith("erasure-")}, events[-2:]


def _without_random_words(script: str) -> str:
    """pg_dump's lines ``\\restrict`` have a new word each time."""
    return "\n".join(
        line for line in script.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    )


TABLE_AND_OBJECT_MOVES: dict[str, type[Move]] = {
    "export-sqlite": ExportSqlite,
    "export-again": ExportAgain,
    "export-more": ExportMore,
    "export-bucket": ExportBucket,
    "transfer": Transfer,
    "restore-sqlite": RestoreSqlite,
    "restore-postgres": RestorePostgres,
    "restore-mariadb": RestoreMariadb,
    "restore-bucket": RestoreBucket,
    "sync": Sync,
    "erase": Erase,
}

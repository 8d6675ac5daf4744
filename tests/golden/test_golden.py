"""The golden bundle, sealed when format 1 was settled, is read by this version in every way."""

import hashlib
import re
import shutil
import sqlite3
from contextlib import closing

import pytest

from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.storage.registry import open_location
from tests.cli.conftest import call, result
from tests.docs.pages import ROOT
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres_databases
from tests.golden.make import BUNDLE, PUBLIC_KEY
from tests.tools.clients import boto_client

FORMAT = (ROOT / "docs/FORMAT.md").read_text(encoding="utf-8")
PAYMENTS = [
    ["1", "2024-02-29 11:00:00+00", "19.99", 0.1, '["a", "b"]', "6f1e7a52-8f6c-4d0e-9a39-0d1c2b3a4e5f"],
    ["2", "infinity", "NaN", "inf", None, None],
    ["3", None, None, None, "[]", None],
]


@pytest.fixture
def golden(tmp_path):
    """A copy: readers may add to the custody log."""
    return shutil.copytree(BUNDLE, tmp_path / "golden")


def test_it_is_the_bundle_of_the_decision_that_made_it():
    """Who makes it anew changes the format: docs/FORMAT.md names the decision and this bundle's root."""
    root = hashlib.sha256((BUNDLE / layout.TAG_MANIFEST).read_bytes()).hexdigest()
    assert f"`{root[:16]}`" in FORMAT
    assert layout.VERSION == 1


def test_it_is_whole_and_signed(golden, tmp_path):
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(f"host {PUBLIC_KEY.read_text()}")
    answer = result("verify", golden, "--level", "full", "--signers", allowed)
    assert answer["findings"] == []
    assert call("custody", "verify", golden).code == 0


def test_it_says_what_it_holds_and_what_not(golden):
    entries = result("ls", golden)["entries"]
    assert [(entry["source"], entry["kind"], entry["name"], entry["items"]) for entry in entries] == [
        ("app", "table", "shop.Payments", 3),
        ("app", "table", "shop.nothing", 0),
        ("app", "table", "pg_catalog.pg_largeobject", 1),
        ("shop", "table", "goods", 2),
        ("notes", "table", "main.Notes", 3),
        ("media", "bucket", "media", 5),
    ]
    reader = BundleReader(open_location(str(golden)))
    assert [(source, gap.disposition) for source, gap in reader.gaps()] == [("media", "excluded")]
    assert "password" in {loss.property for _, loss in reader.losses()}


def test_objects_rows_and_queries_are_read(golden, tmp_path):
    versions = result("ls", golden, "--source", "media", "--versions")["objects"]
    assert [(one["key"], one["is_delete_marker"]) for one in versions if one["is_latest"]] == [
        ("gone", True),
        ("photos/1.jpg", False),
        ("sp ace/ä?%2F", False),
    ]
    (old,) = [one for one in versions if one["key"] == "photos/1.jpg" and not one["is_latest"]]
    for words, body in ((["--version-id", old["version_id"]], "a photo"), ([], "a better photo")):
        got = call("get", golden, "photos/1.jpg", "--source", "media", *words, "--to", "-")
        assert (got.code, got.out) == (0, body)
    rows = result("get", golden, "main.Notes", "--source", "notes")["rows"]
    assert [row["text"] for row in rows] == ["first", "b00ff", None]
    query = """SELECT id::VARCHAR, coalesce("paid$exact", paid::VARCHAR), coalesce("amount$exact", amount::VARCHAR),
      rate, to_json(tags)::VARCHAR, token FROM app.shop."Payments" ORDER BY id"""
    found = result("sql", golden, query)["rows"]
    assert [
        [re.sub(",", ", ", v) if isinstance(v, str) and v[0] == "[" else v for v in row] for row in found
    ] == PAYMENTS


def test_it_comes_back(golden, tmp_path, other_postgres, other_mariadb, other_minio, make_bucket):
    app, shop, bucket = other_postgres.database(), other_mariadb.database(), make_bucket(other_minio)
    media = f"s3://{bucket}?profile={other_minio.profile}"
    destinations = [f"app={app}", f"shop={shop}", f"notes=sqlite://{tmp_path}/notes.db", f"media={media}"]
    assert call("restore", golden, *destinations).code in {0, 3}
    for name, url in (pair.split("=", 1) for pair in destinations):
        assert call("verify", golden, "--against", f"{name}={url}").code == 0, name
    fetched = postgres_databases.fetch(app, 'SELECT amount::text, doubled FROM shop."Payments" ORDER BY id')
    assert [tuple(row) for row in fetched] == [("19.99", 2), ("NaN", 4), (None, 6)]
    assert mysql.fetch(shop, "SELECT CAST(sold AS CHAR) FROM goods ORDER BY id") == [
        ("2024-02-29",),
        ("0000-00-00",),
    ]
    with closing(sqlite3.connect(tmp_path / "notes.db")) as connection:
        assert connection.execute('SELECT text, score FROM "Notes" ORDER BY id').fetchall() == [
            ("first", 0.5),
            (b"\0\xff", "not a number"),
            (None, 2.0),
        ]
    listed = boto_client(other_minio.profile).list_object_versions(Bucket=bucket)
    assert len(listed["Versions"]) == 4
    assert [marker["Key"] for marker in listed["DeleteMarkers"]] == ["gone"]

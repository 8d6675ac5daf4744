"""One destination that cannot take its source never stops the others; a missing one is made on demand."""

import shutil

import psycopg
import pytest

from scripts.process import free_port
from tests.cli.conftest import call, make_file
from tests.tools.clients import boto_client
from tests.tools.disks import tiny_disk

__all__ = ["tiny_disk"]
LOCKED = "bucket-locked-moveout"


@pytest.fixture(scope="module")
def bundle(postgres, mariadb, minio, tmp_path_factory):
    """A bundle of a database in ICU's German, one in latin1, a bucket with object lock, and two files."""
    folder = tmp_path_factory.mktemp("sources")
    postgres.execute(
        "CREATE DATABASE german TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'"
    )
    postgres.execute("CREATE TABLE t AS SELECT 'ä' AS x", "german")
    latin = mariadb.database(options="CHARACTER SET latin1 COLLATE latin1_german1_ci")
    with mariadb.connect(latin.rpartition("/")[2]) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t AS SELECT 'a' AS x")
    boto_client(minio.profile).create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
    boto_client(minio.profile).put_object(Bucket=LOCKED, Key="k", Body=b"v")
    make_file(folder / "small.db")
    make_file(folder / "large.db", 8_000_000)
    ended = call(
        "export",
        f"german={postgres.url_of('german')}",
        f"latin={latin}",
        f"locked=s3://{LOCKED}?profile={minio.profile}",
        f"small=sqlite://{folder}/small.db",
        f"large=sqlite://{folder}/large.db",
        "--to",
        folder / "bundle",
    )
    assert ended.code == 0, ended.err
    return folder / "bundle"


def test_one_arrives_and_four_are_named(
    bundle, other_postgres, other_mariadb, other_minio, tiny_disk, tmp_path
):
    destinations = {
        "german": other_postgres.url_of("not_there"),
        "latin": f"mysql://root@127.0.0.1:{free_port()}/x",
        "locked": f"s3://bucket-not-there?profile={other_minio.profile}",
        "large": f"sqlite://{tiny_disk}/large.db",
        "small": f"sqlite://{tmp_path}/small.db",
    }
    pairs = [f"{name}={url}" for name, url in destinations.items()]
    ended = call("restore", bundle, *pairs, "--json")
    assert ended.code == 3, ended.err
    codes = {failure["source"]: failure["code"] for failure in ended.json["result"]["failed"]}
    assert codes == {"german": "gone", "latin": "unreachable", "locked": "gone", "large": "no-space"}
    assert [outcome["source"] for outcome in ended.json["result"]["restored"]] == ["small"]
    next_steps = {line["source"]: line["next_step"] for line in ended.json["result"]["summary"]}
    assert "add --create" in next_steps["german"]
    assert "add --create" in next_steps["locked"]
    shown = call("restore", bundle, *pairs).out
    assert "small   restored: 1 item" in shown
    assert "german  not restored: " in shown

    against = [word for pair in pairs if not pair.startswith("large") for word in ("--against", pair)]
    compared = call("verify", bundle, *against, "--json")
    assert compared.code == 3, compared.err
    assert {failure["source"] for failure in compared.json["result"]["failed"]} >= {
        "german",
        "latin",
        "locked",
    }
    assert [entry["source"] for entry in compared.json["result"]["compared"]][-1] == "small"


def test_missing_destinations_are_made_as_the_sources_were(
    bundle, other_postgres, other_mariadb, other_minio, tmp_path
):
    pairs = [
        f"german={other_postgres.url_of('made')}",
        f"latin={other_mariadb.url_of('made')}",
        f"locked=s3://bucket-made-{other_minio.profile}?profile={other_minio.profile}",
        f"small=sqlite://{tmp_path}/new/folder/small.db",
    ]
    ended = call("restore", bundle, *pairs, "--create", "--json")
    assert ended.code == 0, ended.err
    notes = [outcome["notes"][0] for outcome in ended.json["result"]["restored"]]
    assert all(note.startswith("made the ") for note in notes)
    with psycopg.connect(other_postgres.url) as connection:
        made = connection.execute(
            "SELECT pg_encoding_to_char(encoding), datlocprovider, daticulocale FROM pg_database"
            " WHERE datname = 'made'"
        ).fetchone()
    assert made == ("UTF8", "i", "de-DE")
    query = "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'made'"
    with other_mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute(query)
        assert cursor.fetchall() == (("latin1_german1_ci",),)
    lock = boto_client(other_minio.profile).get_object_lock_configuration(
        Bucket=f"bucket-made-{other_minio.profile}"
    )
    assert lock["ObjectLockConfiguration"]["ObjectLockEnabled"] == "Enabled"
    assert call("restore", bundle, *pairs, "--create").code == 0, "what is there already is left as it is"


def test_a_damaged_part_costs_its_own_source(bundle, other_mariadb, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    [definitions] = copy.glob("data/latin/schema/*.json")
    definitions.write_bytes(definitions.read_bytes().replace(b"latin1", b"latin2"))
    pairs = [f"latin={other_mariadb.database()}", f"small=sqlite://{tmp_path}/small.db"]
    ended = call("restore", copy, *pairs, "--json")
    assert ended.code == 6, ended.err
    assert [failure["code"] for failure in ended.json["result"]["failed"]] == ["damage"]
    assert [outcome["items"] for outcome in ended.json["result"]["restored"]] == [1]

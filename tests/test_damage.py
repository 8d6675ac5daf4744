"""Every file of a real bundle is damaged in every way, at the origin and at the destination, in a directory and on
S3."""

import random
from collections.abc import Callable, Iterator

import psycopg
import pytest

from exporters.objects import pack, source_summary, unit_plan
from exporters.objects.listing import inventory
from migrate.bundle import layout
from migrate.case.model import Endpoint
from migrate.cli.common.sources import open_sources
from migrate.errors import DamageError, GoneError, MoveoutError, UsageError
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.api import MultipartStore
from migrate.storage.registry import open_location
from migrate.transfer.run import transfer
from migrate.verify.run import Level, verify
from tests.tools.clients import boto_client
from tests.transfer.bags import contents

Files = dict[str, bytes]
UNSEALED = {layout.TAG_MANIFEST, layout.BAGIT, layout.MANIFEST, layout.BUNDLE_META}
"""Where one of these cannot be read there is no sealed bundle: that is said instead of a finding."""


@pytest.fixture(scope="module")
def bundle(minio, postgres, make_bucket, tmp_path_factory) -> Files:
    """All files of a bundle with tables, packs, an object that counts as large here, and DDL."""
    url = postgres.database()
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")
        db.execute("INSERT INTO people SELECT i, 'n' || i FROM generate_series(1, 300) i")
        db.execute("CREATE TABLE nobody (id int)")
    bucket = make_bucket(minio)
    client = boto_client(minio.profile)
    for key, body in {"a": b"a", "b/c": b"bc" * 999, "big": bytes(range(250)) * 1000}.items():
        client.put_object(Bucket=bucket, Key=key, Body=body)
    location = open_location(str(tmp_path_factory.mktemp("bundle")))
    sources = {"app": Endpoint(url), "media": Endpoint(f"s3://{bucket}?profile={minio.profile}")}
    with pytest.MonkeyPatch.context() as patch, open_sources(sources) as opened:
        for module in (inventory, unit_plan, pack, source_summary):
            patch.setattr(module, "SMALL_BYTES", 100_000)
        assert export(opened, location, workers=2, progress=Silent()).complete
    files = contents(location)
    assert any(key.startswith("data/media/large/") for key in files)
    return files


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.torture)], ids=["one way", "every way"])
def all_damages(request, bundle) -> list[tuple[str, Files]]:
    """Every file damaged: each in another way, or in every way."""
    return list(damages(bundle, every_way=request.param))


@pytest.fixture(params=["local", pytest.param("minio", marks=pytest.mark.torture)])
def make_location(request, tmp_path) -> Callable[[str], MultipartStore]:
    """Make an empty location."""

    def make(name: str) -> MultipartStore:
        if request.param == "local":
            return open_location(str(tmp_path / name))
        server = request.getfixturevalue("minio")
        bucket = request.getfixturevalue("make_bucket")(server)
        return open_location(f"s3://{bucket}/{name}?profile={server.profile}")

    return make


def damages(files: Files, *, every_way: bool) -> Iterator[tuple[str, Files]]:
    """Yield (the file that has to be named, the changes to a bundle)."""
    draw = random.Random(8)
    for number, (key, data) in enumerate(files.items()):
        at = draw.randrange(len(data))
        other = draw.choice([name for name in files if files[name] != data and name not in UNSEALED])
        ways = [
            {key: data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]},
            {key: b""},
            {key: data + b"\0"},
            {key: files[other], other: data},
        ]
        for changed in ways if every_way else [ways[number % len(ways)]]:
            yield key, changed
    for name in ("data/stray", "data/app/tables/1/part-000009.parquet", "stray.txt", "meta/stray.json"):
        yield name, {name: b"stray"}


def said_by(look: Callable[[], object]) -> str:
    """What was found, also where one could not even look: never nothing, never a defect."""
    try:
        found = look()
    except (DamageError, UsageError, GoneError) as exc:
        return str(exc)
    return "\n".join(map(str, found.findings))


def check(location: MultipartStore) -> str:
    return said_by(lambda: verify(location, Level.FULL, workers=2, progress=Silent()))


def move(origin: MultipartStore, destination: MultipartStore, **more: bool) -> str:
    return said_by(lambda: transfer(origin, destination, workers=2, progress=Silent(), **more))


def put(location: MultipartStore, files: Files) -> None:
    for key, data in files.items():
        location.put(key, data)


def repair(location: MultipartStore, files: Files, changed: Files) -> None:
    put(location, {key: files[key] for key in changed if key in files})
    for key in changed.keys() - files.keys():
        location.delete(key)


def test_at_the_origin_verify_and_transfer_name_it(bundle, all_damages, make_location):
    origin, destination = make_location("origin"), make_location("destination")
    put(origin, bundle)
    for number, (named, changed) in enumerate(all_damages):
        put(origin, changed)
        assert named in check(origin), named
        for key in contents(destination).keys() & changed.keys():
            destination.delete(key)  # what has arrived whole needs the origin no more
        output = move(origin, destination)
        assert output, named
        assert named in output or changed.keys() & UNSEALED, (named, output)
        strays = changed.keys() - bundle.keys()
        if not strays:
            assert not _exists(destination, layout.TAG_MANIFEST), named
        repair(origin, bundle, changed)
        if number % 8 == 7:
            assert (move(origin, destination), contents(destination)) == ("", bundle)
            for key in contents(destination):
                destination.delete(key)
    assert check(origin) == ""


def test_deleted_at_the_origin_it_is_named(bundle, make_location):
    origin, destination = make_location("origin"), make_location("destination")
    put(origin, bundle)
    for key in bundle:
        origin.delete(key)
        assert key in check(origin)
        if _exists(destination, key):
            destination.delete(key)
        output = move(origin, destination)
        assert output
        assert key in output or key in UNSEALED
        assert not _exists(destination, layout.TAG_MANIFEST)
        put(origin, {key: bundle[key]})
    assert (move(origin, destination), contents(destination)) == ("", bundle)


def test_at_the_destination_verify_names_it_and_a_recheck_repairs_it(bundle, all_damages, make_location):
    origin, destination = make_location("origin"), make_location("destination")
    put(origin, bundle)
    assert move(origin, destination) == ""
    for named, changed in all_damages:
        put(destination, changed)
        assert named in check(destination), named
        strays = changed.keys() - bundle.keys()
        output = move(origin, destination, recheck=True)
        if strays:
            assert named in output
            repair(destination, bundle, changed)
        else:
            assert output == ""
        assert contents(destination) == bundle
    for key in bundle:
        destination.delete(key)
        assert key in check(destination)
        assert (move(origin, destination), destination.read(key)) == ("", bundle[key])


def test_any_bit_of_the_tag_manifest_counts(bundle, make_location):
    """Nothing holds its hash; what it says does not fit any more."""
    location = make_location("location")
    put(location, bundle)
    data = bundle[layout.TAG_MANIFEST]
    for at in range(0, len(data), 11):
        location.put(layout.TAG_MANIFEST, data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        assert check(location), at


def _exists(location: MultipartStore, key: str) -> bool:
    try:
        location.stat(key)
    except MoveoutError:
        return False
    return True

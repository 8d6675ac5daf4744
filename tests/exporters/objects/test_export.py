"""Exports of buckets: everything listed is exported or named."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from exporters.api import DoneUnit
from exporters.bucket_api import Fetched, ObjectSummary
from exporters.errors import SourceGoneError, SourceUnreachableError
from exporters.objects import bucket_survey, changed_objects
from exporters.objects import source_summary as account_module
from exporters.objects.listing import inventory
from exporters.objects.source import ObjectExporter, ObjectSnapshot
from exporters.objects.source_summary import noted_bucket
from exporters.objects.unit_plan import runs
from migrate.bundle.reader import BundleReader
from migrate.runtime.progress import Silent
from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.http import concurrent_requests
from migrate.storage.s3.metadata.object_metadata import Description
from migrate.storage.s3.source_bucket import S3Bucket, open_bucket
from migrate.verify.run import Level, verify
from scripts.network.toxiproxy import Toxiproxy
from scripts.servers import S3Server
from tests.exporters.objects.conftest import BucketHost, FilledShop, MakeShop, Shop, fill, take_out
from tests.exporters.objects.workspaces import Workspace


class Files:
    """A sink over a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.reported: list[tuple[int, int]] = []

    @contextmanager
    def create(self, name: str, *, size_bytes: int = 0) -> Iterator[BinaryIO]:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            yield file

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        self.reported.append((items, size_bytes))


def snapshot(url: str, workspace: Workspace) -> ObjectSnapshot:
    with ObjectExporter().open("shop", url, BucketHost()).snapshot(workspace, workers=2) as found:
        return found


def do_all(taken: ObjectSnapshot, sink: Files, *, leave_out: Sequence[str] = ()) -> list[DoneUnit]:
    wanted = [unit for unit in taken.units() if unit.id not in leave_out]
    return [DoneUnit(unit, taken.export(unit, sink), []) for unit in wanted]


def index(reader: Any) -> list[dict[str, Any]]:
    return [row for batch in reader.index("shop") for row in batch.to_pylist()]


def test_every_object_is_in_the_index_and_where_it_says(
    server: S3Server, filled: FilledShop, tmp_path: Path
) -> None:
    shop, objects = filled(server)
    reader = take_out(shop.url, tmp_path / "bundle")
    rows = index(reader)
    assert {row["key"] for row in rows} == set(objects)
    for row in rows:
        path = tmp_path / "bundle/data/shop" / (row["pack"] or row["large"])
        start = row["offset"] or 0
        body = path.read_bytes()[start : start + row["length"]]
        assert body == objects[row["key"]]
        assert row["sha256"] == hashlib.sha256(body).hexdigest()
        assert row["md5"] == row["etag"]
    [described] = [row for row in rows if row["key"] == "described"]
    assert dict(described["tags"]) == {"project": "blue sky", "owner": "me+you"}
    assert dict(described["headers"])["content-language"] == "de"
    assert dict(described["metadata"]) == {"some-name": "some value"}
    [large] = [row for row in rows if row["key"] == "large.bin"]
    assert large["large"].startswith("large/")
    assert reader.info.complete


def test_gnu_tar_lists_the_pack_by_key(minio: S3Server, filled: FilledShop, tmp_path: Path) -> None:
    shop, objects = filled(minio)
    take_out(shop.url, tmp_path / "bundle")
    pack = tmp_path / "bundle/data/shop/packs/pack-000000.tar"
    listed = subprocess.run(
        ["tar", "--quoting-style=literal", "-tf", pack], capture_output=True, check=True, text=True
    ).stdout.splitlines()
    safe = {key for key in objects if "\n" not in key and key != "large.bin"}
    assert safe < set(listed)
    assert len(listed) == len(objects) - 1


def test_small_objects_are_reported_as_they_are_read(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """A pack may take minutes: neither its listing nor its objects are reported all at once."""
    shop = make_shop(minio)
    objects = ((Description(f"o/{number:04d}"), b"x" * 100) for number in range(250))
    written = open_destination_bucket(shop.url).put_all(objects, window_bytes=10_000)
    assert all(one.error is None for one in written)
    workspace, files = Workspace(), Files(tmp_path / "files")
    taken = snapshot(shop.url, workspace)
    assert workspace.listed_items == 250
    do_all(taken, files)
    assert sum(items for items, _ in files.reported) == 250
    assert sum(size_bytes for _, size_bytes in files.reported) == 25_000
    assert max(items for items, _ in files.reported) <= 100


def test_the_exporter_loads_all_that_it_uses() -> None:
    """In a process of its own: in this one other tests have imported ``pyarrow.compute``."""
    program = """if True:
        import pyarrow as pa
        from exporters.objects import index_rows, source_summary
        source_summary._count(index_rows.INDEX.empty_table(), source_summary.ObjectCounts())
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_empty_bucket_is_counted_as_empty(shop: Shop, tmp_path: Path) -> None:
    reader = take_out(shop.url, tmp_path / "bundle")
    assert index(reader) == []
    assert not reader.info.complete
    [row] = reader.catalog()
    assert (row.kind, row.items) == ("bucket", 0)


def read_back(reader: BundleReader) -> dict[str, bytes]:
    """The bodies of the exported objects, by the index."""
    root = Path(reader.store.location.removeprefix("file://")) / "data/shop"
    bodies = {}
    for row in index(reader):
        if row["disposition"] == "exported":
            start = row["offset"] or 0
            bodies[row["key"]] = (root / (row["pack"] or row["large"])).read_bytes()[
                start : start + row["length"]
            ]
            assert row["sha256"] == hashlib.sha256(bodies[row["key"]]).hexdigest()
            assert row["size"] == row["length"] == len(bodies[row["key"]])
    return bodies


def test_what_has_changed_since_the_listing_is_read_as_it_is_and_what_is_gone_is_named(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle is complete: small to small, small to large and back, large to large, to nothing, deleted, added."""
    objects = fill(shop)
    for number in (2, 3):
        objects[f"large-{number}"] = bytes([number]) * (9 * 2**20)
        shop.put(f"large-{number}", objects[f"large-{number}"])
    changes = {
        "small/001.bin": b"changed",
        "small/003.bin": bytes(range(250)) * 40_000,
        "small/004.bin": b"",
        "large.bin": b"small now",
        "large-2": b"x" * (10 * 2**20),
    }
    take = inventory.take

    def take_and_change(*args: Any) -> Any:
        taken = take(*args)
        for key, body in changes.items():
            shop.put(key, body, Metadata={"new": "yes"})
        shop.put("zzz-new", b"new")
        for key in ("small/002.bin", "large-3", "described"):
            shop.boto.delete_object(Bucket=shop.name, Key=key)
        return taken

    monkeypatch.setattr(inventory, "take", take_and_change)
    reader = take_out(shop.url, tmp_path / "bundle")
    rows = {row["key"]: row for row in index(reader)}
    gone = {key: row["reason"] for key, row in rows.items() if row["disposition"] == "excluded"}
    assert gone == dict.fromkeys(("small/002.bin", "large-3", "described"), changed_objects.DELETED)
    assert read_back(reader) == {key: body for key, body in (objects | changes).items() if key not in gone}
    assert all(dict(rows[key]["metadata"]) == {"new": "yes"} for key in changes)
    assert reader.info.complete
    assert verify(reader.store, Level.FULL, workers=2, progress=Silent()).findings == []
    [entry] = reader.catalog()
    assert (entry.items, entry.details["newer_than_listed"]) == (len(objects) - 3, 5)
    losses = {loss.reason for _, loss in reader.losses() if "changes" in loss.property}
    assert {reason.split()[0] for reason in losses} == {"1", "3"}


def test_an_object_that_is_listed_but_not_readable_is_no_deleted_one(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = make_shop(minio)
    shop.put("here")
    taken = snapshot(shop.url, Workspace())
    monkeypatch.setattr(
        changed_objects,
        "current",
        lambda bucket, summary: Fetched(summary, error=SourceGoneError("no such key")),
    )
    shop.put("here", b"other")
    [done] = do_all(taken, Files(tmp_path))
    assert [(gap.disposition, gap.reason) for gap in done.outcome.gaps] == [("failed", "no such key")]


def test_a_bucket_that_is_gone_makes_no_deleted_objects(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    shop = make_shop(minio)
    shop.put("a")
    shop.put("large.bin", bytes(9 * 2**20))
    taken = snapshot(shop.url, Workspace())
    for key in ("a", "large.bin"):
        shop.boto.delete_object(Bucket=shop.name, Key=key)
    shop.boto.delete_bucket(Bucket=shop.name)
    for unit in taken.units():
        with pytest.raises(SourceGoneError):
            taken.export(unit, Files(tmp_path))


def test_units_that_were_not_done_are_named(
    minio: S3Server, filled: FilledShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, _ = filled(minio)
    taken = snapshot(shop.url, Workspace())
    done = do_all(taken, Files(tmp_path), leave_out=["packs/000000"])
    summary = taken.finish(iter(done), Files(tmp_path))
    assert summary.entries[0].items == 1
    assert all("packs/000000" in gap.reason for gap in summary.gaps)
    assert {one.count for one in summary.enumerations} == {1 + len(summary.gaps)}, "they add up"
    assert len({gap.item for gap in summary.gaps}) == len(summary.gaps) > 1
    monkeypatch.setattr(account_module, "_NAMED_GAPS", 1)
    [gap] = taken.finish(iter(done), Files(tmp_path)).gaps
    assert gap.item.startswith(f"{len(summary.gaps)} objects from ")


def test_the_inventory_goes_on_where_it_was_killed(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "SHARD_ROWS", 10)
    shop = make_shop(minio)
    keys = [f"k{number:03d}" for number in range(45)]
    for key in keys:
        shop.put(key, b"x")
    killed, whole = Workspace(), Workspace()
    killed.fail_after = 3
    with pytest.raises(KeyboardInterrupt):
        snapshot(shop.url, killed)
    assert "inventory.json" not in killed
    killed.fail_after = 1 << 60
    left = dict(killed)
    resumed, straight = snapshot(shop.url, killed), snapshot(shop.url, whole)
    assert {name: killed[name] for name in left} == left
    assert [unit.spec for unit in resumed.units()] == [unit.spec for unit in straight.units()]
    found = [one.key for shard in range(5) for one in resumed._inventory.objects(shard, 0, 10)]
    assert found == keys


def test_packs_are_the_same_again(minio: S3Server, filled: FilledShop, tmp_path: Path) -> None:
    shop, _ = filled(minio)
    taken = snapshot(shop.url, Workspace())
    do_all(taken, Files(tmp_path / "a"))
    do_all(taken, Files(tmp_path / "b"))
    first = (tmp_path / "a/packs/pack-000000.tar").read_bytes()
    assert first == (tmp_path / "b/packs/pack-000000.tar").read_bytes()


def test_packs_are_full_by_bytes_and_leave_large_objects_out() -> None:
    large = inventory.SMALL_BYTES + 1
    assert list(runs([5, 5, large, 5, 5], 10)) == [(0, 3), (3, 5)]
    assert list(runs([large, large], 10)) == []
    assert list(runs([0] * 25_000, 10)) == [(0, 10_000), (10_000, 20_000), (20_000, 25_000)]


def test_an_outage_is_no_gap(
    minio: S3Server,
    make_shop: MakeShop,
    toxiproxy: Toxiproxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the source does not answer, the unit is left for the next run."""
    monkeypatch.setattr(concurrent_requests, "RETRY_SECONDS", 1.0)
    shop = make_shop(minio)
    fill(shop, odd=False)
    proxy = toxiproxy.proxy(minio.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", minio.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", minio.secret_key)
    taken = snapshot(f"s3://{shop.name}", Workspace())
    units = list(taken.units())
    proxy.cut()
    for unit in units:
        with pytest.raises(SourceUnreachableError):
            taken.export(unit, Files(tmp_path))
    proxy.mend()
    assert sum(one.outcome.items for one in do_all(taken, Files(tmp_path))) == len(shop.keys())


def test_a_setting_that_changes_during_an_export_is_named(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """From one run to the next; what has several tags, which MinIO gives in any order, stays what it is."""
    shop, workspace = make_shop(minio), Workspace()
    shop.put("a")
    tag_bucket(shop, dict.fromkeys("abcdef", "1"))
    changes = {"none": [], "tags": ["bucket tagging"], "as then": ["bucket tagging"]}
    for run, names in changes.items():
        taken = snapshot(shop.url, workspace)
        taken.begin_outline(workspace)
        done = do_all(taken, Files(tmp_path))
        if run == "tags":
            tag_bucket(shop, {"team": "blue"})
        losses = taken.finish(iter(done), Files(tmp_path)).losses
        assert [loss.property for loss in losses if "was changed" in loss.reason] == names, run


def test_what_an_earlier_run_has_noted_of_settings_stays_where_they_cannot_be_read_again(
    minio: S3Server, make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, workspace = make_shop(minio), Workspace()
    shop.put("a")
    tag_bucket(shop, {"team": "blue"})
    snapshot(shop.url, workspace).begin_outline(workspace)
    taken = snapshot(shop.url, workspace)

    def silent(_: object) -> None:
        raise SourceUnreachableError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(S3Bucket, "configuration", silent)
        taken.begin_outline(workspace)
    noted = noted_bucket(workspace)
    assert noted is not None
    assert (noted.settings or {})["tagging"] == {"TagSet": [{"Key": "team", "Value": "blue"}]}


def tag_bucket(shop: Shop, tags: Mapping[str, str]) -> None:
    tag_set = [{"Key": name, "Value": value} for name, value in tags.items()]
    shop.boto.put_bucket_tagging(Bucket=shop.name, Tagging={"TagSet": tag_set})


def test_settings_and_losses(shop: Shop, tmp_path: Path) -> None:
    shop.put("a")
    shop.boto.put_bucket_versioning(Bucket=shop.name, VersioningConfiguration={"Status": "Enabled"})
    taken = snapshot(shop.url, Workspace())
    summary = taken.finish(iter(do_all(taken, Files(tmp_path))), Files(tmp_path))
    assert "versions" not in {loss.property for loss in summary.losses}
    assert summary.entries[0].details["history"]
    settings = json.loads((tmp_path / "bucket.json").read_text())
    assert settings["versioning"]["Status"] == "Enabled"


def test_survey_counts(server: S3Server, filled: FilledShop) -> None:
    shop, objects = filled(server)
    survey = ObjectExporter().open("shop", shop.url, BucketHost()).survey()
    [item] = survey.items
    assert (item.items, item.size_bytes, item.exact) == (
        len(objects),
        sum(map(len, objects.values())),
        True,
    )
    assert any("no file names" in one for one in survey.warnings)


def test_a_survey_counts_what_it_does_not_look_at(
    server: S3Server, filled: FilledShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, objects = filled(server)
    monkeypatch.setattr(bucket_survey, "LOOKED_AT", 1)
    survey = ObjectExporter().open("shop", shop.url, BucketHost()).survey()
    [item] = survey.items
    assert (item.items, item.size_bytes) == (len(objects), sum(map(len, objects.values())))
    assert not survey.goes_on
    assert any("the rest was counted" in one for one in survey.warnings)


def test_a_survey_says_where_it_did_not_come_to_the_end(
    server: S3Server, filled: FilledShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, _ = filled(server)
    monkeypatch.setattr(bucket_survey, "COUNT_SECONDS", -1.0)
    survey = ObjectExporter().open("shop", shop.url, BucketHost()).survey()
    assert survey.goes_on
    assert not survey.items[0].exact
    assert any("more objects than could be counted" in one for one in survey.warnings)


def test_an_estimate_is_measured(minio: S3Server, filled: FilledShop) -> None:
    shop, _ = filled(minio)
    source = ObjectExporter().open("shop", shop.url, BucketHost())
    found = source.estimate(source.survey(), seconds=0.3, workers=2)
    assert found.items_rate > 0
    assert 0 < found.seconds < 60


def test_no_more_is_listed_once_every_object_that_cannot_be_read_is(
    minio: S3Server, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(minio)
    for key in "abcde":
        shop.put(key)
    bucket, listed = open_bucket(shop.url), []
    summaries = list(bucket.list())
    pages = bucket.list

    def counted(**options: str) -> Iterator[ObjectSummary]:
        for summary in pages(**options):
            listed.append(summary.key)
            yield summary

    monkeypatch.setattr(bucket, "list", counted)
    assert changed_objects.still_listed(bucket, summaries[:2], ordered=False) == {"a", "b"}
    assert listed == ["a", "b"]


@pytest.mark.parametrize("odd", ["\x01ctl", "z\x01ctl"])
def test_a_server_that_lists_in_its_own_order(
    versitygw: S3Server, make_shop: MakeShop, tmp_path: Path, odd: str
) -> None:
    """versitygw shows a control character as U+FFFD, in the wrong location and unreadable: a gap, and no
    disagreement. Nor was it deleted, where the listing is in order as it happens."""
    shop = make_shop(versitygw)
    for key in (odd, "a", "b"):
        shop.put(key)
    taken = snapshot(shop.url, Workspace())
    done = do_all(taken, Files(tmp_path))
    summary = taken.finish(iter(done), Files(tmp_path))
    [gap] = [gap for one in done for gap in one.outcome.gaps]
    assert (gap.item, gap.disposition) == (odd.replace("\x01", "\ufffd"), "failed")
    assert gap.reason.endswith("rename it at the source")
    assert {one.count for one in summary.enumerations} == {3}
    assert open_bucket(shop.url).server.lower() == "versitygw"

"""The rows of an object index, as commands see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace

import pyarrow as pa
import pytest
from msgspec.structs import replace

from exporters.objects.index_rows import INDEX, LATIN_1, PART_NUMBERS
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.object_index import (
    FailedObject,
    ObjectRow,
    failed_objects,
    has_history,
    hidden_keys,
    histories,
    object_rows,
    source_prefix,
)
from migrate.errors import DamageError
from migrate.storage.checksums import Content

MOMENT = datetime(2026, 3, 1, tzinfo=UTC)
BUCKET = CatalogRow("media", "bucket", 0, "", "shop", "", 0, 0, "", {}, {"prefix": "p/", "history": True})


@dataclass
class Bundle:
    """Stands for a reader that has nothing but a catalog and an index."""

    batches: list[list[dict]]
    complete: bool = False
    rows: list[CatalogRow] = field(default_factory=lambda: [BUCKET])

    @property
    def info(self) -> SimpleNamespace:
        return SimpleNamespace(complete=self.complete)

    def catalog(self) -> list[CatalogRow]:
        return self.rows

    def index(self, source: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        assert source == "media"
        for rows in self.batches:
            yield pa.RecordBatch.from_pylist(rows, schema=INDEX).select(columns or INDEX.names)


def row(key: str, /, **values: object) -> dict:
    return {
        "key": f"p/{key}",
        "is_latest": True,
        "is_delete_marker": False,
        "size": 3,
        "last_modified": MOMENT,
        "sha256": "aa",
        "disposition": "exported",
        **values,
    }


def one(**values: object) -> ObjectRow:
    (row_read,) = object_rows(Bundle([[row("a", **values)]]), "media")
    return row_read


def test_a_row_says_everything_that_the_index_says():
    assert one(
        version_id="v1",
        is_latest=False,
        etag="etag",
        storage_class="GLACIER",
        md5="bb",
        crc64nvme="cc",
        checksums=[("sha1", "dd")],
        headers=[("content-type", "text/plain"), ("cache-control", "fÃ¼r")],
        metadata=[("name", "value")],
        tags=[("project", "blue")],
        other=[
            ("x-amz-server-side-encryption", "AES256"),
            (PART_NUMBERS, "2,4"),
            (LATIN_1, "cache-control"),
        ],
        acl="private",
        lock_mode="GOVERNANCE",
        lock_until="2030-01-01T00:00:00Z",
        legal_hold="ON",
        part_sizes=[1, 2],
        pack="packs/1.tar",
        offset=512,
        length=3,
    ) == ObjectRow(
        key="a",
        size_bytes=3,
        sha256="aa",
        md5="bb",
        crc64nvme="cc",
        modified=MOMENT,
        file="data/media/packs/1.tar",
        offset=512,
        headers={"content-type": "text/plain", "cache-control": "für"},
        metadata={"name": "value"},
        tags={"project": "blue"},
        checksums={"sha1": "dd"},
        etag="etag",
        version_id="v1",
        is_latest=False,
        storage_class="GLACIER",
        lock_mode="GOVERNANCE",
        lock_until="2030-01-01T00:00:00Z",
        legal_hold=True,
        acl="private",
        encryption="AES256",
        part_sizes=(1, 2),
        part_numbers=(2, 4),
    )


def test_what_an_index_does_not_say_is_empty():
    assert one(large="large/1", is_latest=None, is_delete_marker=None) == ObjectRow(
        "a", 3, "aa", "", "", MOMENT, "data/media/large/1", 0
    )
    marker = one(is_delete_marker=True, size=None, sha256=None, pack="packs/1.tar")
    assert (marker.is_delete_marker, marker.file, marker.sha256) == (True, "", "")


def test_a_row_names_its_version_and_its_content():
    with_md5 = ObjectRow("a", 3, "aa", "bb", "cc", None, "", 0, etag="etag", version_id="v1")
    assert (with_md5.name, replace(with_md5, version_id="").name) == ("a (version v1)", "a")
    assert with_md5.content == Content(3, "aa", "bb", "cc")
    assert replace(with_md5, md5="").content == Content(3, "aa", "etag", "cc")
    failed = FailedObject("a", "v1", True, "")
    assert (failed.name, replace(failed, version_id="").name) == ("a (version v1)", "a")


def test_rows_come_in_their_order_and_only_what_was_exported():
    many = [row(f"{number:04d}") for number in range(1001)]
    bundle = Bundle([many, [row("x", disposition="failed"), row("y", disposition="excluded"), row("z")]])
    assert [found.key for found in object_rows(bundle, "media")] == [
        *(f"{number:04d}" for number in range(1001)),
        "z",
    ]


@pytest.mark.parametrize("column", ["key", "size", "sha256"])
def test_a_row_without_what_it_needs_is_damage(column):
    with pytest.raises(DamageError, match="data/media/index/"):
        one(**{column: None})


def test_a_marker_without_a_key_is_damage():
    with pytest.raises(DamageError, match="the columns"):
        one(is_delete_marker=True, key=None)


def test_failed_objects_are_named_and_the_newest_hides_its_key():
    rows = [
        row("a", disposition="failed", version_id="v2", is_latest=False, reason="gone"),
        row("b", disposition="failed", is_latest=None),
        row("c", disposition="excluded"),
        row("d"),
    ]
    bundle = Bundle([rows])
    assert list(failed_objects(bundle, "media")) == [
        FailedObject("a", "v2", False, "gone"),
        FailedObject("b", "", True, ""),
    ]
    assert hidden_keys(bundle, "media") == {"b"}
    assert hidden_keys(Bundle([rows], complete=True), "media") == frozenset()


def test_histories_are_oldest_first_and_a_hidden_key_ends_with_a_marker():
    def version(key: str, number: int, **more: bool) -> ObjectRow:
        return ObjectRow(key, 1, "", "", "", None, "f", 0, version_id=str(number), **more)

    rows = [version("a", 2), version("a", 1), version("b", 1), version("c", 3, is_delete_marker=True)]
    by_key = dict(histories(rows, {"b", "c"}))
    assert list(by_key) == ["a", "b", "c"]
    assert [one.version_id for one in by_key["a"]] == ["1", "2"]
    assert [(one.version_id, one.is_delete_marker) for one in by_key["b"]] == [("1", False), ("", True)]
    assert (by_key["b"][1].key, by_key["b"][1].size_bytes, by_key["b"][1].offset) == ("b", 0, 0)
    assert [one.version_id for one in by_key["c"]] == ["3"]
    assert [len(one) for _, one in histories(rows)] == [2, 1, 1]


def test_what_the_catalog_says_of_a_bucket():
    table = replace(BUCKET, kind="table", details={"prefix": "wrong/"})
    other = replace(BUCKET, source="other", details={"prefix": "wrong/"})
    bundle = Bundle([], rows=[table, other, BUCKET])
    assert source_prefix(bundle, "media") == "p/"
    assert has_history(bundle, "media") is True
    plain = Bundle([], rows=[replace(BUCKET, details={})])
    assert (source_prefix(plain, "media"), has_history(plain, "media")) == ("", False)
    with pytest.raises(DamageError, match="a bucket of the source media"):
        source_prefix(Bundle([], rows=[table, other]), "media")

"""Not everything is wanted: what stays is named, with the reason, and all adds up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exporters.errors import SourceUsageError
from exporters.objects.listing import inventory
from exporters.objects.source import ObjectExporter
from exporters.selection import Selection, glob
from migrate.bundle.reader import BundleReader
from migrate.case.selection import from_words, parse_tags
from migrate.errors import UsageError
from migrate.runtime.progress import Silent
from migrate.verify.run import Level, verify
from scripts.servers import S3Server
from tests.exporters.objects.conftest import BucketHost, MakeShop, Shop, take_out
from tests.exporters.objects.workspaces import Workspace


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.jpg", ["a.jpg", "x/y/b.jpg", ".jpg"], ["a.jpg/x", "ajpg"]),
        ("photos/*", ["photos/a"], ["photos/a/b", "x/photos/a"]),
        ("photos/**", ["photos/a", "photos/a/b", "photos/"], ["photos", "photo/s"]),
        ("photos/", ["photos/a/b"], ["photos"]),
        ("**/tmp/**", ["a/tmp/b", "a/b/tmp/c/d"], ["tmp", "a/tmpx/b"]),
        ("a?c", ["abc", "x/a.c"], ["ac", "a/c"]),
        ("[a-c]x", ["ax", "z/cx"], ["dx", "x"]),
        ("[!a-c]x", ["dx"], ["ax"]),
        ("we[ird(.+", ["we[ird(.+"], ["weird"]),
        ("n\n*", ["n\nl"], ["n"]),
    ],
)
def test_globs(pattern: str, matching: list[str], others: list[str]) -> None:
    assert [key for key in matching if not glob(pattern).match(key)] == []
    assert [key for key in others if glob(pattern).match(key)] == []


@pytest.mark.parametrize(
    "given",
    [
        {"include": 7},
        {"exclude": [""]},
        {"min_size": "big"},
        {"newer_than": "soon"},
        {"tags": {"a": 1}},
        {"current_only": "yes"},
    ],
)
def test_what_is_no_choice_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        from_words(given)
    with pytest.raises(UsageError):
        parse_tags(["no-value"])


def test_choices_are_read() -> None:
    selection = from_words({"include": "*.jpg", "min_size": "1K", "newer_than": "2026-01-02T03:04:05Z"})
    assert selection.include == ("*.jpg",)
    assert selection.min_bytes == 1024
    assert selection.newer_than == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert from_words({}) == Selection()
    assert parse_tags(["a=b=c"]) == {"a": "b=c"}


def dispositions(reader: BundleReader) -> dict[str, tuple[str, str]]:
    rows = [row for batch in reader.index("shop") for row in batch.to_pylist()]
    return {row["key"]: (row["disposition"], row["reason"] or "") for row in rows}


def test_what_is_not_wanted_is_named_and_the_bundle_is_complete(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "SHARD_ROWS", 3)
    shop.put("keep/a.txt", b"12345", Tagging="keep=yes")
    shop.put("keep/b.tmp", b"12345", Tagging="keep=yes")
    shop.put("keep/big.bin", bytes(9 * 2**20), Tagging="keep=yes")
    shop.put("keep/c.txt", b"1")
    shop.put("keep/untagged-big", bytes(9 * 2**20))
    shop.put("other/d.txt", b"12345")
    chosen = Selection(include=("keep/**",), exclude=("*.tmp",), min_bytes=2, tags={"keep": "yes"})
    reader = take_out(shop.url, tmp_path / "bundle", selection=chosen)
    assert dispositions(reader) == {
        "keep/a.txt": ("exported", ""),
        "keep/b.tmp": ("excluded", "not selected: matches --exclude *.tmp"),
        "keep/big.bin": ("exported", ""),
        "keep/c.txt": ("excluded", "not selected: smaller than 2 bytes"),
        "keep/untagged-big": ("excluded", "not selected: has no tag keep=yes"),
        "other/d.txt": ("excluded", "not selected: matches no --include"),
    }
    [reconciliation] = reader.reconciliation()
    assert reconciliation.complete, reconciliation.reasons
    assert reconciliation.dispositions == {"exported": 2, "excluded": 4, "failed": 0}
    assert sorted(gap.item for _, gap in reader.gaps()) == [
        "keep/b.tmp", "keep/c.txt", "keep/untagged-big", "other/d.txt",
    ]  # fmt: skip
    assert "keep/**" in reader.catalog()[0].details["choice"]
    assert [loss.property for _, loss in reader.losses() if "changes" in loss.property] == []
    assert verify(reader.store, Level.FULL, workers=2, progress=Silent()).findings == []


def test_nothing_is_wanted(minio: S3Server, make_shop: MakeShop, tmp_path: Path) -> None:
    shop = make_shop(minio)
    shop.put("a")
    later = Selection(newer_than=datetime.now(UTC) + timedelta(days=1))
    reader = take_out(shop.url, tmp_path / "bundle", selection=later)
    assert not reader.info.complete
    assert "all objects in it (1) were excluded" in reader.reconciliation()[0].reasons[0]
    assert reader.reconciliation()[0].dispositions == {"exported": 0, "excluded": 1, "failed": 0}


def test_another_choice_needs_another_location(minio: S3Server, make_shop: MakeShop) -> None:
    shop = make_shop(minio)
    shop.put("a")
    workspace = Workspace()
    for chosen in (Selection(exclude=("b",)), Selection(exclude=("b",)), Selection()):
        source = ObjectExporter().open("shop", shop.url, BucketHost(chosen))
        if chosen == Selection():
            with (
                pytest.raises(SourceUsageError, match="another choice"),
                source.snapshot(workspace, workers=1),
            ):
                pass
        else:
            with source.snapshot(workspace, workers=1) as taken:
                assert len(list(taken.units())) == 1

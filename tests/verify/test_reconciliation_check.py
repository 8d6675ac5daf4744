"""A bundle that calls itself complete and is not: its hashes hold, its summary does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.api import Gap
from migrate.bundle import layout
from migrate.export.outcome import ExportOptions
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.bundle.test_hostile import Memory, tag_manifest
from tests.export.sources import Numbers
from tests.transfer.bags import contents


def sealed(directory: Path, disposition: str) -> dict[str, bytes]:
    location = open_location(str(directory / "bundle"))
    export(
        [Numbers(count=15, gaps={3: Gap("3", disposition, "gone")})], location, workers=1, progress=Silent()
    )
    return {key: data for key, data in contents(location).items() if not key.startswith(layout.WORK)}


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> dict[str, bytes]:
    """The files of an incomplete bundle."""
    return sealed(tmp_path_factory.mktemp("short"), "failed")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """The files of a complete one, from which one item was left out on purpose."""
    return sealed(tmp_path_factory.mktemp("whole"), "excluded")


def changed(files: dict[str, bytes], key: str, change: Callable[[dict], object]) -> dict[str, bytes]:
    """Change one JSON file, and seal again as if it had always been so."""
    value = json.loads(files[key])
    change(value)
    files = {**files, key: json.dumps(value).encode()}
    files[layout.TAG_MANIFEST] = tag_manifest(files)
    return files


def said(files: dict[str, bytes], level: Level = Level.COMPLETE) -> str:
    return "\n".join(map(str, verify(Memory(files), level, workers=1, progress=Silent()).findings))


def call_complete(files: dict[str, bytes]) -> dict[str, bytes]:
    """Write the word everywhere, and take the reasons away."""
    files = changed(files, layout.BUNDLE_META, lambda it: it.update(complete=True))
    files = changed(files, layout.BUNDLE_META, lambda it: it["sources"][0].update(complete=True))
    info = files[layout.BAG_INFO].replace(b"Status: incomplete", b"Status: complete")
    files = {**files, layout.BAG_INFO: info}
    return changed(files, layout.RECONCILIATION, lambda it: it["sources"][0].update(reasons=[]))


def test_an_honest_account_has_no_findings(short):
    for level in Level:
        assert said(short, level) == ""


@pytest.mark.parametrize("level", [Level.COMPLETE, Level.FULL])
def test_the_word_complete_is_not_believed(short, level):
    assert "says that app is complete, though 1 item could not be exported" in said(
        call_complete(short), level
    )


@pytest.mark.parametrize(
    ("key", "change", "finding"),
    [
        (
            layout.BUNDLE_META,
            lambda it: it.update(complete=True),
            "meta/bundle.json: differs from meta/reconciliation.json",
        ),
        (
            layout.BUNDLE_META,
            lambda it: it["sources"][0].update(complete=True),
            "meta/bundle.json: says of other sources than meta/reconciliation.json that they are complete",
        ),
        (
            layout.RECONCILIATION,
            lambda it: it["sources"][0]["dispositions"].update(failed=0),
            "counts other gaps of app than data/gaps.parquet has",
        ),
        (
            layout.RECONCILIATION,
            lambda it: it["sources"][0]["dispositions"].update(exported=15),
            "has two numbers of exported items of app",
        ),
    ],
)
def test_what_does_not_add_up_is_named(short, key, change, finding):
    assert finding in said(changed(short, key, change))


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda it: it["enumerations"].pop(), "counted in one way only"),
        (lambda it: it["enumerations"].clear(), "nothing was counted"),
        (
            lambda it: it["enumerations"][0].update(how=it["enumerations"][1]["how"]),
            "counted in one way only",
        ),
        (lambda it: it["enumerations"][0].update(count=16), "the counts of objects differ"),
        (
            lambda it: [one.update(count=99) for one in it["enumerations"]],
            "none of the counts says so",
        ),
        (lambda it: it.update(items=15), "the catalog says 14 items, the commit records 15"),
    ],
)
def test_a_complete_source_is_counted_twice_and_adds_up(whole, change, finding):
    assert said(whole) == ""
    files = changed(whole, layout.RECONCILIATION, lambda it: change(it["sources"][0]))
    lines = [line for line in said(files).splitlines() if "says that app is complete, though" in line]
    assert [line for line in lines if finding in line], lines


def test_what_cannot_be_read_is_named(whole):
    files = {**whole, layout.CATALOG: bytes(len(whole[layout.CATALOG]))}
    assert "data/catalog.parquet: cannot be read" in said(files)


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        (layout.BAG_INFO, b"Payload-Oxum: ", b"Payload-Oxum: x"),
        (layout.BAGIT, b"BagIt-Version", b"Bag-Version"),
        (layout.BUNDLE_META, b'"id"', b'"ID"'),
    ],
)
def test_a_tag_file_that_was_sealed_as_it_is_must_have_the_form(whole, key, old, new):
    assert old in whole[key]
    files = {**whole, key: whole[key].replace(old, new)}
    files[layout.TAG_MANIFEST] = tag_manifest(files)
    assert f"{key}: is not as the format demands" in said(files)


def test_that_nothing_was_in_a_source_is_no_damage(tmp_path):
    """Whether it may be so was decided when the bundle was sealed."""
    location = open_location(str(tmp_path))
    sources = [Numbers(count=5), Numbers("none", "numbers://host/none", count=0)]
    options = ExportOptions(may_be_empty={"none"})
    outcome = export(sources, location, workers=1, progress=Silent(), options=options)
    assert outcome.complete
    assert said(dict(contents(location))) == ""


def test_each_source_is_compared_with_its_own_rows(tmp_path):
    """Of two sources, one that lacks what the other has is named."""
    location = open_location(str(tmp_path / "bundle"))
    sources = [
        Numbers(count=15, name="app"),
        Numbers(count=5, name="shop", gaps={3: Gap("3", "excluded", "gone")}),
    ]
    export(sources, location, workers=1, progress=Silent())
    files = {key: data for key, data in contents(location).items() if not key.startswith(layout.WORK)}
    assert said(files) == ""
    files = changed(files, layout.BUNDLE_META, lambda it: it["sources"].reverse())
    assert said(files) == ""
    files = changed(files, layout.RECONCILIATION, lambda it: it["sources"][0].update(items=16))
    assert "has two numbers of exported items of app" in said(files)
    assert "app is complete, though the catalog says 15 items, the commit records 16" in said(files)
    assert "shop" not in said(files)

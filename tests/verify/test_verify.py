"""Whatever is changed in a sealed bundle is found, and named."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters.engine import Engine
from exporters.objects.index_rows import INDEX
from migrate.bundle.findings import Finding
from migrate.engines import registry
from migrate.errors import GoneError, UsageError
from migrate.export.run import export
from migrate.runtime.progress import OF_NO_SOURCE, Silent, SourceTask
from migrate.storage.registry import open_location
from migrate.verify import reconciliation_check
from migrate.verify.run import Level, VerifyOutcome, verify
from tests.export.sources import Numbers
from tests.tools.bundles import put_in_place_of, seal_anew


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A whole bundle, to be copied before it is spoilt."""
    location = tmp_path_factory.mktemp("sealed")
    export([Numbers()], open_location(str(location)), workers=2, progress=Silent())
    return location


@pytest.fixture
def bundle(sealed, tmp_path):
    return Path(shutil.copytree(sealed, tmp_path / "bundle"))


def look(bundle: Path, level: Level) -> VerifyOutcome:
    return verify(open_location(str(bundle)), level, workers=2, progress=Silent())


def names(outcome: VerifyOutcome) -> str:
    return "\n".join(map(str, outcome.findings))


def all_files(bundle: Path) -> list[str]:
    return sorted(str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file())


@pytest.mark.parametrize("level", Level)
def test_the_counts_of_sources_are_added_up_unless_it_has_to_be_quick(sealed, monkeypatch, level):
    asked = []
    monkeypatch.setattr(reconciliation_check, "check", lambda reader: asked.append(reader) or [])
    look(sealed, level)
    assert len(asked) == (level is not Level.QUICK)


@pytest.mark.parametrize("level", Level)
def test_a_strange_file_outside_of_the_payload_is_named_unless_it_has_to_be_quick(bundle, level):
    (bundle / "meta/stray.json").write_bytes(b"x")
    found = "meta/stray.json: is not in tagmanifest-sha256.txt" in names(look(bundle, level))
    assert found == (level is not Level.QUICK)


def test_a_bundle_is_whole_where_there_is_nothing_but_more_than_it_names():
    extra, damage = Finding("a", "is not in the manifest", extra=True), Finding("b", "is missing")

    def is_whole(*findings: Finding) -> bool:
        return VerifyOutcome(findings, 1, 1, (), "id", values=True).is_whole

    assert [is_whole(), is_whole(extra), is_whole(damage), is_whole(extra, damage)] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("level", Level)
def test_a_whole_bundle_has_no_findings(bundle, level):
    outcome = look(bundle, level)
    assert outcome.findings == []
    assert outcome.files == 14


class Watched(Silent):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.begun, self.done, self.notes, self.ended = [], Counter[str](), [], 0

    def begin(self, what: str, *, items: int, size_bytes: int, of: SourceTask = OF_NO_SOURCE) -> None:
        self.begun.append((what, items, size_bytes))

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        self.done.update(items=items, size_bytes=size_bytes)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def end(self, *, stopped: bool = False) -> None:
        self.ended += 1


@pytest.mark.parametrize("values", [True, False])
@pytest.mark.parametrize("level", Level)
def test_how_far_it_is_and_which_values_were_not_compared_is_said(bundle, level, values):
    """No engine reads the files of the source."""
    progress = Watched()
    store = open_location(str(bundle))
    outcome = verify(store, level, workers=2, progress=progress, values=values)
    size_bytes = outcome.size_bytes if level is Level.FULL else 0
    assert progress.begun == [(f"verify {level.value}", 14, size_bytes)]
    assert progress.done == {"items": 14, "size_bytes": size_bytes}
    assert progress.ended == 1
    is_read = level is Level.FULL and values
    assert ["numbers:// sources" in note for note in progress.notes] == [True] * is_read
    assert outcome.values == is_read
    assert outcome.bundle == json.loads(store.read("meta/bundle.json"))["id"]


def test_without_the_sum_of_its_payload_the_total_is_not_known(bundle):
    (bundle / "bag-info.txt").write_text("none")
    progress = Watched()
    verify(open_location(str(bundle)), Level.FULL, workers=2, progress=progress)
    assert progress.begun == [("verify full", 0, 0)]


def test_one_flipped_bit_in_any_file_is_found_and_named(bundle):
    """First, middle and last byte of every file; ``full`` names the file."""
    for name in all_files(bundle):
        path = bundle / name
        good = path.read_bytes()
        for at in {0, len(good) // 2, len(good) - 1}:
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            assert name in names(look(bundle, Level.FULL)), (name, at)
        path.write_bytes(good)
    assert look(bundle, Level.FULL).findings == []


@pytest.mark.parametrize("level", Level)
def test_a_deleted_file_is_found_and_named(bundle, level):
    for name in all_files(bundle):
        if name == "tagmanifest-sha256.txt":
            continue
        good = (bundle / name).read_bytes()
        (bundle / name).unlink()
        assert name in names(look(bundle, level))
        (bundle / name).write_bytes(good)


def test_without_tag_manifest_nothing_is_sealed(bundle):
    (bundle / "tagmanifest-sha256.txt").unlink()
    with pytest.raises(UsageError, match=r"no tagmanifest-sha256\.txt"):
        look(bundle, Level.QUICK)


@pytest.mark.parametrize("name", ["data/app/more.txt", "data/more.txt", "more.txt", "meta/more.json"])
def test_an_added_file_is_found_and_named(bundle, name):
    (bundle / name).write_text("more")
    assert [finding.key for finding in look(bundle, Level.COMPLETE).findings if finding.key == name]


def test_two_swapped_files_are_found_and_named(bundle):
    """Of different sizes by the listing, of equal sizes by the hash."""
    one, two = bundle / "data/app/numbers/00000000.txt", bundle / "data/app/numbers/00000010.txt"
    three = bundle / "data/app/numbers/00000020.txt"
    swap(one, two)
    swap(two, three)
    outcome = look(bundle, Level.COMPLETE)
    assert one.name in names(outcome)
    assert {one.name, two.name, three.name} == {
        Path(finding.key).name for finding in look(bundle, Level.FULL).findings if "numbers" in finding.key
    }


def swap(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def test_a_longer_file_is_found_by_size(bundle):
    path = bundle / "data/app/numbers/00000000.txt"
    path.write_bytes(path.read_bytes() + b"x")
    (finding,) = [each for each in look(bundle, Level.QUICK).findings if each.key.startswith("data")]
    assert str(finding).endswith("00000000.txt: has another size: expected 20 bytes, found 21 bytes")


def test_nothing_there_is_gone(tmp_path):
    with pytest.raises(GoneError, match="nothing at"):
        look(tmp_path / "nowhere", Level.QUICK)


def test_an_open_export_is_not_a_bundle(tmp_path):
    store = open_location(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        export([Numbers(on_finish=crash)], store, workers=2, progress=Silent())
    with pytest.raises(UsageError, match="not sealed yet"):
        look(tmp_path, Level.QUICK)


def crash() -> None:
    raise KeyboardInterrupt


def test_a_list_of_files_that_was_sealed_and_is_none_is_named(bundle):
    seal_anew(bundle, "meta/files.jsonl", b"none\n")
    assert "meta/files.jsonl" in {
        finding.key.partition(" ")[0] for finding in look(bundle, Level.FULL).findings
    }


def test_a_catalog_that_was_sealed_and_is_none_is_named(bundle):
    catalog = "data/catalog.parquet"
    seal_anew(bundle, catalog, bytes((bundle / catalog).stat().st_size))
    problems = {finding.key: finding.what for finding in look(bundle, Level.FULL).findings}
    assert problems[catalog] == "cannot be read"


@pytest.fixture
def numbers_are_objects(monkeypatch):
    engine = Engine("Numbers", ("numbers",), "", contents="objects")
    monkeypatch.setattr(registry, "_by_scheme", lambda: {"numbers": engine})


@pytest.mark.usefixtures("numbers_are_objects")
def test_an_index_that_was_sealed_and_is_none_is_named(bundle):
    index = "data/app/index/objects-0.parquet"
    put_in_place_of(bundle, "data/app/index/numbers.txt", index, b"no Parquet")
    problems = {finding.key: finding.what for finding in look(bundle, Level.FULL).findings}
    assert problems[index] == "cannot be read"
    assert "data/app/index/" not in problems


def pack_objects(bundle: Path, source: str, unit: str, objects: dict[str, bytes], stored: bytes) -> str:
    """Write ``stored`` as a pack in place of a unit's file, and an index of objects; return the pack's key."""
    pack = f"data/{source}/packs/0.tar"
    put_in_place_of(bundle, f"data/{source}/numbers/{unit}.txt", pack, stored)
    rows, offset = [], 0
    for key, body in objects.items():
        rows.append(
            dict.fromkeys(INDEX.names)
            | {"key": key, "size": len(body), "length": len(body), "offset": offset}
            | {"sha256": hashlib.sha256(body).hexdigest(), "pack": "packs/0.tar", "disposition": "exported"}
        )
        offset += len(body)
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, INDEX), written)
    index = f"data/{source}/index/objects-0.parquet"
    put_in_place_of(bundle, f"data/{source}/index/numbers.txt", index, written.getvalue())
    return pack


@pytest.mark.usefixtures("numbers_are_objects")
def test_an_object_that_is_another_one_in_its_pack_is_named(bundle):
    objects = {"one": b"12345", "two": b"1234567"}
    pack = pack_objects(bundle, "app", "00000090", objects, b"12345" + b"1234568")
    found = [str(finding) for finding in look(bundle, Level.FULL).findings if finding.key.startswith(pack)]
    assert len(found) == 1
    assert "'two'" in found[0]


@pytest.mark.usefixtures("numbers_are_objects")
def test_the_objects_of_each_bucket_are_counted_by_themselves(tmp_path):
    sources = [Numbers(count=2), Numbers("shop", "numbers://host/shop", count=1)]
    export(sources, open_location(str(tmp_path)), workers=1, progress=Silent())
    pack_objects(tmp_path, "app", "00000000", {"one": b"1", "two": b"2"}, b"12")
    pack_objects(tmp_path, "shop", "00000000", {"three": b"3"}, b"3")
    payload = [path.stat().st_size for path in (tmp_path / "data").rglob("*") if path.is_file()]
    info = (tmp_path / "bag-info.txt").read_text()
    oxum = f"Payload-Oxum: {sum(payload)}.{len(payload)}"
    seal_anew(tmp_path, "bag-info.txt", re.sub(r"Payload-Oxum: \S+", oxum, info).encode())
    assert look(tmp_path, Level.FULL).findings == []


@pytest.mark.usefixtures("numbers_are_objects")
def test_the_objects_in_the_index_of_a_bucket_are_counted(bundle):
    (finding,) = look(bundle, Level.FULL).findings
    assert (finding.key, finding.what) == ("data/app/index/", "rows that say exported")
    assert (finding.expected, finding.found) == ("95", "0")

"""The seal: what lies at a location and what the commit records say must agree, or nothing is sealed."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters.api import CatalogEntry, Enumeration, Gap, Loss, Outcome, SourceSummary, Unit
from migrate.bundle import layout
from migrate.bundle.commit_records import (
    CommitRecord,
    FileRecord,
    FinalRecord,
    group_infos,
    record_ids,
    write_final,
    write_records,
)
from migrate.bundle.export_ledger import ExportLedger
from migrate.bundle.export_state import SourceName, new_state, write_state
from migrate.bundle.left_behind import LeftBehind, ServerRest
from migrate.bundle.reader import BundleReader
from migrate.bundle.reconciliation import SourceReconciliation, reasons_incomplete
from migrate.bundle.seal import ExportedData, Sealed, SealedTables, clean_work, compare, seal, unseal
from migrate.bundle.seal import _write_files as write_files
from migrate.errors import BusyError, DamageError, UnreachableError, UsageError
from migrate.runtime.progress import Silent
from migrate.storage.api import PART_BYTES, MultipartStore
from migrate.storage.file_writer import FileWriter
from migrate.storage.local.store import LocalStore
from migrate.verify.run import Level, verify
from tests.faults import Fault, FaultPlan, Faulty, fail, lose_file

STATE = new_state([SourceName("app", "toy://app", "file 1"), SourceName("shop", "toy://shop")])


@pytest.fixture
def store(tmp_path) -> LocalStore:
    """A location with two sources: ``app`` has units "one" and "two" in a group, and "big"; ``shop`` has nothing."""
    store = LocalStore(tmp_path / "bundle")
    write_state(store, STATE)
    write_records(store, [unit(store, "one"), unit(store, "two")])
    write_records(store, [unit(store, "big", 3)])
    for source in ("app", "shop"):
        write_final(store, FinalRecord(source, SourceSummary([], []), []))
    return store


def unit(store: LocalStore, name: str, items: int = 1, source="app") -> CommitRecord:
    with FileWriter(store, f"data/{source}/{name}") as file:
        file.write(name.encode())
    written = FileRecord(file.key, file.size_bytes, file.sha256, file.crc64nvme)
    outcome = Outcome(items, len(name))
    return CommitRecord(
        source, Unit(name, items, len(name), {}), outcome, [written], {"at": 1}, "2026-01-01T00:00:00Z"
    )


def seal_it(store: MultipartStore, gaps=None, finals=(), left_behind=None, **options: object) -> Sealed:
    """Seal from the records that there are, as an export does."""
    from migrate.bundle.commit_records import read_group, read_record

    with ExportLedger() as ledger, ThreadPoolExecutor(2) as executor:
        for info in group_infos(store, "app"):
            ledger.add_all(read_group(store, "app", info.key))
        for unit_id in record_ids(store, "app"):
            ledger.add(read_record(store, "app", unit_id))
        for final in finals:
            ledger.add_final(final)
        reconciliations = []
        for source in ("app", "shop"):
            ledger.add_gaps(source, (gaps or {}).get(source, []))
            totals, counts = ledger.totals(source), ledger.gap_counts(source)
            entries = [CatalogEntry("table", 1, "", "t", totals.items, totals.size_bytes, "", {})]
            enumerations = [Enumeration("rows", way, totals.items) for way in ("counted", "exported")]
            summary = SourceSummary(
                entries, enumerations, positions=ledger.positions(source) and [{"at": 0}, {"at": 1}]
            )
            reasons = reasons_incomplete(summary, totals, counts)
            own_gaps = list(ledger.gaps(source))
            dispositions = {"exported": totals.items, **counts}
            reconciliations.append(
                SourceReconciliation(
                    source, f"toy://{source}", summary, totals, dispositions, own_gaps, reasons
                )
            )
        options = {"check": lambda: None, **options}
        exported = ExportedData(STATE, ledger, reconciliations, left_behind)
        return seal(store, exported, executor=executor, **options)


def findings(store: LocalStore) -> list[str]:
    return [str(one) for one in verify(store, Level.FULL, workers=1, progress=Silent()).findings]


def test_a_complete_bundle_says_what_is_in_it_and_leaves_no_work(store):
    left = LeftBehind([ServerRest("toy://host", ["other.db"])])
    sealed = seal_it(store, left_behind=left)
    assert (sealed.id, sealed.complete) == (STATE.id, True)
    assert not [info.key for info in store.list() if info.key.startswith(layout.WORK)]
    assert findings(store) == []
    reader = BundleReader(store)
    assert [file.key for file in reader.manifest()] == sorted(info.key for info in store.list(layout.DATA))
    assert (sealed.files, sealed.size_bytes) == (
        len(list(store.list(layout.DATA))),
        sum(info.size_bytes for info in store.list(layout.DATA)),
    )
    assert [(row.items, row.position) for row in reader.catalog()] == [(5, {"at": 1}), (0, {})]
    info, labels = reader.info, reader.bag_info
    assert labels["Bagging-Date"] == info.sealed[:10]
    assert [labels[f"Moveout-Source-{name}"] for name in ("app", "shop")] == [
        "5 items, complete",
        "0 items, complete",
    ]
    tags = [line.partition("  ")[2] for line in store.read(layout.TAG_MANIFEST).decode().splitlines()]
    assert tags == sorted(tags)
    assert [(source.name, source.kind, source.identity, source.complete) for source in info.sources] == [
        ("app", "toy", "file 1", True),
        ("shop", "toy", "", True),
    ]
    assert info.left_behind is not None
    assert list(info.left_behind.sentences()) == ["Also on toy://host, not taken: other.db."]
    assert "data/gaps.parquet" not in {file.key for file in reader.manifest()}


def test_a_page_is_made_of_what_is_sealed_and_sealed_with_it(store):
    """It lies next to the data, and may read the indexes of buckets."""
    table = io.BytesIO()
    pq.write_table(pa.table({"key": ["a", "b"], "size": [1, 2]}), table)
    key = "data/app/index/objects-0.parquet"
    with FileWriter(store, key) as file:
        file.write(table.getvalue())
    written = FileRecord(key, file.size_bytes, file.sha256, file.crc64nvme)
    losses = [Loss("t", "comment", "too long")]
    final = FinalRecord("app", SourceSummary([], [], losses=losses), [written])
    write_final(store, final)

    def page(tables: SealedTables) -> bytes:
        assert [each.name for each in tables.reconciliation()] == ["app", "shop"]
        assert [row.items for row in tables.catalog()] == [5, 0]
        assert list(tables.losses()) == [("app", losses[0])]
        assert list(tables.gaps()) == [("shop", Gap("x", "failed", "gone"))]
        files, size_bytes = tables.payload[1], tables.payload[0]
        keys = [
            batch.column("key").to_pylist()
            for source in ("app", "shop")
            for batch in tables.index(source, columns=["key"])
        ]
        return f"{tables.info.id} {files} {size_bytes} {keys}".encode()

    sealed = seal_it(store, {"shop": [Gap("x", "failed", "gone")]}, finals=[final], page=page)
    expected = f"{STATE.id} {sealed.files} {sealed.size_bytes} [['a', 'b']]"
    assert store.read(layout.REPORT) == expected.encode()
    assert findings(store) == []


def test_an_incomplete_bundle_names_its_gaps_and_can_be_continued(store):
    before = {info.key for info in store.list(layout.WORK)}
    sealed = seal_it(store, {"shop": [Gap("x", "failed", "gone")]})
    assert not sealed.complete
    assert before <= {info.key for info in store.list(layout.WORK)}
    assert findings(store) == []
    reader = BundleReader(store)
    assert list(reader.gaps()) == [("shop", Gap("x", "failed", "gone"))]
    assert (reader.info.complete, reader.bag_info["Moveout-Status"]) == (False, "incomplete")
    assert "complete" not in reader.bag_info["Moveout-Source-shop"]
    assert [source.complete for source in reader.info.sources] == [True, False]
    store.put("sig/custody.jsonl", b"{}")
    store.put("sig/bundle.sig", b"x")
    unseal(store)
    left = {info.key for info in store.list()}
    assert left >= before
    payload = {"data/app/one", "data/app/two", "data/app/big"}
    assert {key for key in left - before if not key.endswith("duckdb.sql")} - payload <= {"sig/custody.jsonl"}
    assert seal_it(store).complete


def test_what_no_record_names_is_removed_also_what_was_half_uploaded(store):
    store.put("data/app/stray", b"stray")
    upload = store.begin("data/app/half")
    assert [one.key for one in store.uploads(layout.DATA)] == ["data/app/half"]
    assert seal_it(store).complete
    assert list(store.uploads(layout.DATA)) == []
    assert "data/app/stray" not in {info.key for info in store.list()}
    assert upload
    assert findings(store) == []


@pytest.mark.parametrize("unit_id", ["two", "big"])
@pytest.mark.parametrize(("content", "found"), [(None, "no such file"), (b"longer", "6 bytes")])
def test_a_file_that_is_not_as_its_record_says_voids_that_record_alone(store, unit_id, content, found):
    key = f"data/app/{unit_id}"
    store.delete(key)
    if content:
        store.put(key, content)
    with pytest.raises(DamageError, match=f"{key}.*expected 3 bytes, found {found}$"):
        seal_it(store)
    assert sorted(record_ids(store, "app")) == sorted({"one", "two", "big"} - {unit_id})
    finals = {info.key for info in store.list(layout.WORK)} & {
        layout.final_record(name) for name in ("app", "shop")
    }
    assert finals == {layout.final_record("shop")}
    with pytest.raises(UsageError, match="not sealed yet"):
        findings(store)
    write_records(store, [unit(store, unit_id, 3 if unit_id == "big" else 1)])
    assert seal_it(store).complete


def test_a_file_of_a_whole_source_that_is_gone_voids_what_says_that_the_source_is_done(store):
    with FileWriter(store, "data/app/schema.sql") as file:
        file.write(b"CREATE")
    written = FileRecord(file.key, file.size_bytes, file.sha256, file.crc64nvme)
    final = FinalRecord("app", SourceSummary([], []), [written])
    write_final(store, final)
    store.delete(file.key)
    with pytest.raises(DamageError, match=r"data/app/schema.sql.*found no such file$"):
        seal_it(store, finals=[final])
    finals = {info.key for info in store.list(layout.WORK) if info.key.endswith("final.json")}
    assert finals == {layout.final_record("shop")}
    assert sorted(record_ids(store, "app")) == ["big", "one", "two"]


def test_a_group_of_records_that_is_damaged_meanwhile_stays(store):
    """Records are only voided where all of them can be read."""
    (group, *_) = [info.key for info in group_infos(store, "app")]
    calls = count(1)

    def damage() -> None:
        if next(calls) == 2:
            store.put(group, b"{")
            store.delete("data/app/big")

    with pytest.raises(DamageError, match=group):
        seal_it(store, check=damage)
    assert group in {info.key for info in group_infos(store, "app")}


def test_a_run_that_must_stop_goes_no_further(store):
    """It is asked before each step, the last time before the file that makes it a sealed bundle."""
    steps = ("data/app/stray", layout.CATALOG, layout.MANIFEST, layout.BUNDLE_META, layout.TAG_MANIFEST)
    store.put(steps[0], b"stray")
    seen = []
    for number in range(1, 6):
        calls = count(1)

        def stop_here(number: int = number, calls: count = calls) -> None:
            if next(calls) == number:
                raise BusyError("stop")

        with pytest.raises(BusyError):
            seal_it(store, check=stop_here)
        there = {info.key for info in store.list()}
        seen.append([steps.index(key) for key in steps if key in there])
    assert seen == [[0], [0, 1], [1], [1, 2], [1, 2, 3]]
    assert seal_it(store).complete


def test_a_half_upload_that_cannot_be_dropped_ends_the_seal(store):
    store.begin("data/app/half")
    plan = FaultPlan(Fault("abort", fail(UnreachableError("no answer"))))
    with pytest.raises(UnreachableError, match="no answer"):
        seal_it(Faulty(store, plan))
    plan.assert_all_fired()
    with pytest.raises(UsageError, match="not sealed yet"):
        findings(store)


def test_a_manifest_that_could_not_be_written_leaves_no_upload(store):
    long_name = "x" * PART_BYTES
    plan = FaultPlan(Fault("begin", fail(UnreachableError("no answer")), prefix=layout.MANIFEST))
    with ExportLedger() as ledger, ThreadPoolExecutor(1) as executor:
        ledger.add_files([FileRecord(f"data/{long_name}{end}", 0, "0" * 64, 0) for end in "ab"])
        with pytest.raises(UnreachableError, match="no answer"):
            write_files(Faulty(store, plan), ledger, executor)
    plan.assert_all_fired()
    assert list(store.uploads()) == []


@pytest.mark.parametrize("key", [layout.FILES, layout.MANIFEST, layout.BUNDLE_META, layout.TAG_MANIFEST])
def test_a_tag_file_that_the_location_takes_and_loses_is_named_and_written_again(store, key):
    plan = FaultPlan(Fault("put", lose_file(store, key), prefix=key))
    with pytest.raises(DamageError, match=f"{key}.*found no such file") as lost:
        seal_it(Faulty(store, plan))
    plan.assert_all_fired()
    assert "run the same command again" in lost.value.next_step
    assert layout.TAG_MANIFEST not in {info.key for info in store.list()}
    assert seal_it(store).complete
    assert findings(store) == []


def test_several_files_that_are_missing_are_counted(store):
    for name in ("one", "two"):
        store.delete(f"data/app/{name}")
    with pytest.raises(DamageError, match=r"data/app/one.* \(1 more files likewise\)"):
        seal_it(store)
    assert list(record_ids(store, "app")) == ["big"]


def test_a_listing_is_compared_key_by_key(tmp_path):
    store = LocalStore(tmp_path)
    for name in ("b", "c", "e", "f"):
        store.put(f"data/{name}", b"12")
    files = [
        FileRecord(f"data/{name}", size, "", 0) for name, size in (("a", 1), ("c", 2), ("d", 0), ("e", 3))
    ]
    assert list(compare(iter(files), store)) == [
        ("data/a", 1, None),
        ("data/b", None, 2),
        ("data/d", 0, None),
        ("data/e", 3, 2),
        ("data/f", None, 2),
    ]
    assert list(compare(iter([*files, FileRecord("data/g", 4, "", 0)]), store))[-1] == ("data/g", 4, None)


def test_what_says_that_there_is_work_goes_last(store, monkeypatch):
    """A run that is killed while it cleans leaves what the next one knows it by; the lease is its holder's."""
    store.put(layout.LEASE, b"{}")
    with ThreadPoolExecutor(1) as executor:
        monkeypatch.setattr(store, "delete", stop, raising=False)
        with pytest.raises(KeyboardInterrupt):
            clean_work(store, executor)
        assert [info.key for info in store.list(layout.WORK)] == sorted([layout.EXPORT_STATE, layout.LEASE])


def test_all_work_is_removed_however_much_it_is(store):
    store.together = 1
    for number in range(300):
        store.put(f"{layout.WORK}app/{number}", b"")
    with ThreadPoolExecutor(4) as executor:
        clean_work(store, executor)
    assert list(store.list(layout.WORK)) == []


def stop(key: str) -> None:
    raise KeyboardInterrupt


def test_a_small_file_is_read_only_if_its_bytes_are_those_of_the_manifest(store):
    seal_it(store)
    reader = BundleReader(store)
    (file,) = reader.source_files("app", "one")
    assert reader.read_checked(file) == b"one"
    digests = set()
    for number in range(8):
        store.put(file.key, bytes([number]) * 3)
        with pytest.raises(DamageError, match=file.key) as caught:
            reader.read_checked(file)
        digests.add(caught.value.found > file.sha256)
    assert digests == {True, False}
    store.delete(file.key)
    with pytest.raises(DamageError, match=f"{file.key}.*found none"):
        reader.read_checked(file)

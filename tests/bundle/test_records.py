"""Commit records, the ledger made of them, and the summary made of that."""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from exporters.api import CatalogEntry, Enumeration, Gap, Loss, Outcome, SourceSummary, Unit
from migrate.bundle import canonical_json, commit_records, layout, reconciliation
from migrate.bundle.commit_records import (
    CommitRecord,
    FileRecord,
    FinalRecord,
    decode_group,
    decode_record,
    encode_group,
    encode_record,
    group_infos,
    read_final,
    read_group,
    read_record,
    record_ids,
    separate_groups,
    write_final,
    write_record,
    write_records,
)
from migrate.bundle.export_ledger import ExportLedger, Totals
from migrate.bundle.source_workspace import StoreWorkspace
from migrate.bundle.unit_sink import RESUMED_BYTES, StoreSink
from migrate.errors import DamageError, MoveoutError, NoSpaceError, UsageError
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.storage.api import StoreWrapper
from migrate.storage.local.store import LocalStore
from tests.faults import Fault, FaultPlan, Faulty, fail

TEXT = st.text(st.characters(codec=None), max_size=20)
NUMBERS = st.integers(0, 2**62)
GONE = object()
GAPS = st.builds(Gap, TEXT, st.sampled_from(["excluded", "failed"]), TEXT)
LOSSES = st.builds(Loss, TEXT, TEXT, TEXT)
JSON = st.dictionaries(
    TEXT, st.one_of(st.none(), st.booleans(), st.integers(), TEXT, st.lists(TEXT, max_size=3)), max_size=3
)
FILES = st.builds(
    FileRecord,
    st.from_regex(r"data/app/[a-z]{1,9}", fullmatch=True),
    NUMBERS,
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    st.integers(0, 2**64 - 1),
)
RECORDS = st.builds(
    CommitRecord,
    st.just("app"),
    st.builds(Unit, st.just("a/1"), NUMBERS, NUMBERS, JSON),
    st.builds(
        Outcome,
        NUMBERS,
        NUMBERS,
        st.one_of(st.none(), st.integers(0, 2**128 - 1)),
        st.lists(LOSSES),
        st.lists(GAPS),
        JSON,
    ),
    st.lists(FILES, max_size=3),
    JSON,
    TEXT,
)


@settings(max_examples=6, deadline=None)
@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record):
    """Lone surrogates (keys that are not UTF-8) and 128-bit digests included."""
    assert decode_record(encode_record(record), "key", "app") == record


@settings(max_examples=3, deadline=None)
@given(st.lists(RECORDS, max_size=3))
def test_a_group_is_read_as_it_was_written(records):
    assert decode_group(encode_group(records), "key", "app") == records


@given(st.binary(max_size=60))
def test_what_is_no_record_is_damage(data):
    for decode in (decode_record, decode_group):
        with pytest.raises(DamageError, match="the-key"):
            decode(data, "the-key", "app")


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("unit", None), ("unit", []), ("unit.id", GONE), ("unit.items", "many"), ("unit.spec", "text"),
        ("outcome", GONE), ("outcome.items", None), ("outcome.digest", "no digit"), ("outcome.digest", 3),
        ("outcome.losses", [["a", "b"]]), ("outcome.gaps", 3), ("outcome.facts", ["a"]),
        ("files", GONE), ("files", [3]), ("files", [{}]), ("position", 3), ("finished", GONE),
    ],
)  # fmt: skip
def test_a_record_with_a_value_that_makes_no_sense_is_damage(path, wrong):
    changed = _changed(json.loads(encode_record(record("one"))), path, wrong)
    with pytest.raises(DamageError, match=r"the-key.*something else"):
        decode_record(canonical_json.encode(changed), "the-key", "app")


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("summary", GONE), ("summary", []), ("summary.entries", [{"kind": "table"}]), ("summary.entries", 3),
        ("summary.enumerations", [["rows"]]), ("summary.positions", [3]), ("summary.server", GONE),
        ("files", GONE), ("files", [{}]), ("files", ["a"]),
    ],
)  # fmt: skip
def test_a_final_record_with_a_value_that_makes_no_sense_is_damage(tmp_path, path, wrong):
    store, key = LocalStore(tmp_path), layout.final_record("app")
    write_final(store, FinalRecord("app", SourceSummary([], []), []))
    store.put(key, canonical_json.encode(_changed(json.loads(store.read(key)), path, wrong)))
    with pytest.raises(DamageError, match="something else"):
        read_final(store, "app")


def _changed(value: dict[str, Any], path: str, wrong: Any) -> dict[str, Any]:
    """Replace a value, or remove it."""
    *names, last = path.split(".")
    place = value
    for name in names:
        place = place[name]
    place[last] = wrong
    if wrong is GONE:
        del place[last]
    return value


def test_units_of_a_group_get_records_of_their_own(tmp_path):
    """One that has its own already keeps it; a damaged group is forgotten, if the caller agrees."""
    store = LocalStore(tmp_path)
    write_record(store, record("own", "as it is now"))
    write_records(store, [record("own", "as it was"), record("other", "x")])
    assert [len(read_group(store, "app", info.key)) for info in group_infos(store, "app")] == [2]
    damaged = layout.group_record("app", "damaged")
    store.put(damaged, b"{")
    with pytest.raises(DamageError):
        separate_groups(store, "app", refuse)
    assert store.read(damaged) == b"{"
    errors: list[DamageError] = []
    separate_groups(store, "app", errors.append)
    assert [damaged in str(error) for error in errors] == [True]
    assert group_infos(store, "app") == []
    assert sorted(record_ids(store, "app")) == ["other", "own"]
    assert read_record(store, "app", "own").files == record("own", "as it is now").files
    assert read_record(store, "app", "other").files == record("other", "x").files


def test_records_are_read_in_order_a_few_ahead(tmp_path):
    """More than are read ahead; whatever is no record in the folder is left alone."""
    store = LocalStore(tmp_path)
    for number in range(2 * commit_records._AHEAD):
        write_record(store, record(f"{number:04}", f"f{number:04}"))
    store.put(f"{layout.units_prefix('app')}0000.json.tmp", b"half")
    ids = list(record_ids(store, "app"))
    asked: list[str] = []
    with ThreadPoolExecutor(3) as executor:
        records = commit_records.read_records(store, "app", (asked.append(i) or i for i in ids), executor)
        assert (next(records).unit.id, len(asked)) == ("0000", commit_records._AHEAD)
        assert (
            [one.unit.id for one in records] == ids[1:] == [f"{number:04}" for number in range(1, len(ids))]
        )


def test_units_are_committed_alone_or_together(tmp_path):
    store = LocalStore(tmp_path)
    write_records(store, [])
    assert list(store.list()) == []
    write_records(store, [record("alone")])
    assert (list(record_ids(store, "app")), group_infos(store, "app")) == (["alone"], [])
    write_records(store, [record("one"), record("two")])
    store.put(f"{layout.groups_prefix('app')}x.tmp", b"half")
    assert (list(record_ids(store, "app")), len(group_infos(store, "app"))) == (["alone"], 1)


@pytest.mark.parametrize("records", [None, {}, [[]], [{}, 3]])
def test_a_group_of_something_else_is_damage(records):
    with pytest.raises(DamageError, match="the-key"):
        decode_group(canonical_json.encode({"version": 1, "records": records}), "the-key", "app")


@pytest.mark.parametrize("version", [0, 2])
def test_a_record_of_another_version_is_refused_alone_and_in_a_group(version):
    other = [json.loads(encode_record(record("one"))) | {"version": version}]
    words = (
        f"the-key was made by another version of the format: it has version {version}, and this moveout reads"
    )
    with pytest.raises(UsageError, match=words):
        decode_record(canonical_json.encode(other[0]), "the-key", "app")
    with pytest.raises(UsageError, match=words):
        decode_group(canonical_json.encode({"version": 1, "records": other}), "the-key", "app")


class Entry(TypedDict):
    a: int


@pytest.mark.parametrize(
    "data", [b"{}", b"[1]", b'[{"a": 1}, 1]', b"[{}]", b'[{"a": "1"}]', b'[{"a": null}]', b"[", b"\xff"]
)
def test_only_a_list_of_the_right_objects_is_one(data):
    assert canonical_json.decode_entries(b'[{"a": 1, "b": 2}]', "the-key", Entry) == [{"a": 1, "b": 2}]
    with pytest.raises(DamageError, match="the-key"):
        canonical_json.decode_entries(data, "the-key", Entry)


def test_texts_hold_bytes_only_where_they_may():
    assert canonical_json.decode_entries(rb'["\udc80"]', "k", str, holds_bytes=True) == ["\udc80"]
    for data, holds_bytes in ((rb'["\udc80"]', False), (rb'["\ud800"]', True)):
        with pytest.raises(DamageError):
            canonical_json.decode_entries(data, "k", str, holds_bytes=holds_bytes)


def test_the_same_values_are_the_same_bytes():
    values = {"b": 1, "a": {"d": 2, "c": 3}}
    same = {"a": {"c": 3, "d": 2}, "b": 1}
    for encode in (canonical_json.encode, canonical_json.encode_pretty):
        assert encode(values) == encode(same)


def refuse(error: DamageError) -> None:
    raise error


def record(unit: str, *keys: str, gaps=(), losses=()) -> CommitRecord:
    files = [FileRecord(f"data/app/{key}", 5, "0" * 64, 2**64 - 1) for key in keys]
    return CommitRecord(
        "app", Unit(unit, 1, 5, {}), Outcome(1, 5, losses=losses, gaps=gaps), files, {}, "now"
    )


def test_the_ledger_gives_files_in_the_order_of_listings_and_each_note_once():
    gap, loss = Gap("\ud800", "failed", "odd"), Loss("t", "owner", "why")
    with ExportLedger() as ledger:
        ledger.add(record("b", "b-c", "b/c", gaps=[gap], losses=[loss]))
        ledger.add(record("a", "a", "z", gaps=[gap], losses=[loss]))
        assert [file.key for file in ledger.files()] == [
            f"data/app/{key}" for key in ("a", "b-c", "b/c", "z")
        ]
        assert list(ledger.gaps("app")) == [Gap("\\ud800", "failed", "odd")]
        assert list(ledger.losses("app")) == [loss]
        assert [done.unit.id for done in ledger.done("app")] == ["a", "b"]
        assert list(next(iter(ledger.done("app"))).files) == ["a", "z"]
        assert ledger.totals("app") == Totals(2, 2, 10)
        assert ledger.owner("data/app/b-c") == ("app", "b")


def test_the_ledger_keeps_sources_apart():
    shop = CommitRecord("shop", Unit("a", 9, 9, {}), Outcome(9, 90), [], {"lsn": 2}, "2026-01-01T00:00:02Z")
    later = replace(shop, unit=Unit("b", 1, 1, {}), finished="2026-01-01T00:00:05Z")
    older = replace(shop, unit=Unit("c", 1, 1, {}), position={"lsn": 1}, finished="2026-01-01T00:00:01Z")
    with ExportLedger() as ledger:
        ledger.add_all([record("a", "x"), shop, later, older])
        ledger.add_final(
            FinalRecord("shop", SourceSummary([], [], [Gap("g", "failed", "r")], [Loss("i", "p", "r")]), [])
        )
        ledger.add_gaps(
            "shop", [Gap("g", "excluded", "r"), Gap("g", "failed", "again"), Gap("h", "failed", "r")]
        )
        ledger.add_files([FileRecord("data/catalog.parquet", 1, "0" * 64, 2)])
        assert ledger.gap_counts("shop") == {"failed": 2, "excluded": 1}
        assert (ledger.gap_counts("app"), list(ledger.losses("app"))) == ({}, [])
        assert [(gap.disposition, gap.reason) for gap in ledger.gaps("shop")] == [
            ("excluded", "r"), ("failed", "r"), ("failed", "r"),
        ]  # fmt: skip
        assert list(ledger.losses("shop")) == [Loss("i", "p", "r")]
        assert ledger.positions("shop") == [({"lsn": 1}, 1, 9), ({"lsn": 2}, 2, 18)]
        assert ledger.times()[:3] == [(f"2026-01-01T00:00:0{second}Z", 90) for second in (1, 2, 5)]
        assert (ledger.totals("shop"), ledger.unit_count()) == (Totals(3, 27, 270), 4)
        assert [ledger.has("shop", name) for name in ("a", "x")] == [True, False]
        assert [ledger.owner(f"data/{name}") for name in ("app/x", "catalog.parquet", "y")] == [
            ("app", "a"),
            ("", ""),
            None,
        ]
        ledger.plan("shop", [Unit(name, 1, 2, {"n": name}) for name in "cab"])
        ledger.plan("app", [Unit("d", 1, 2, {})])
        (first, unit), (second, _) = ledger.planned("shop", 0, 2)
        assert (first, unit) == (1, Unit("c", 1, 2, {"n": "c"}))
        assert [planned.id for _, planned in ledger.planned("shop", second, 2)] == ["b"]
        ledger.forget("shop")
        assert (ledger.totals("shop"), ledger.gap_counts("shop"), ledger.planned("shop", 0, 9)) == (
            Totals(0, 0, 0),
            {},
            [],
        )
        assert (ledger.totals("app").units, len(ledger.planned("app", 0, 9)), len(list(ledger.files()))) == (
            1,
            1,
            2,
        )


def test_two_units_cannot_write_one_file():
    with ExportLedger() as ledger:
        ledger.add(record("a", "x"))
        with pytest.raises(MoveoutError, match="data/app/x was written twice"):
            ledger.add_all([record("c", "y"), record("b", "x")])
        assert ledger.totals("app").units == 1
        assert [file.key for file in ledger.files()] == ["data/app/x"]


def fill(ledger: ExportLedger) -> None:
    for number in range(10_000):
        ledger.add(record(f"{number:05}", f"f{number:05}"))


def test_a_full_temporary_directory_is_told():
    with ExportLedger() as ledger:
        ledger._db.execute("PRAGMA max_page_count = 30")
        with pytest.raises(NoSpaceError, match=r"temporary directory .* is full") as caught:
            fill(ledger)
        assert "TMPDIR" in caught.value.next_step


def test_a_ledger_leaves_nothing_behind_even_when_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ExportLedger() as ledger:
        fill(ledger)
        assert list(tmp_path.iterdir()) == []


def test_a_temporary_directory_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(NoSpaceError, match="gone cannot be written"):
        ExportLedger()


def test_many_units_are_walked_page_by_page():
    with ExportLedger() as ledger:
        for number in range(1234):
            ledger.add(record(f"{number:05}", f"f{number:05}", losses=[Loss(f"{number:05}", "p", "r")]))
        assert [done.unit.id for done in ledger.done("app")] == [f"{number:05}" for number in range(1234)]
        assert len(list(ledger.files())) == len(list(ledger.losses("app"))) == 1234
        ledger.forget("app")
        assert list(ledger.files()) == []


def test_a_final_record_is_read_as_it_was_written(tmp_path):
    summary = SourceSummary(
        [CatalogEntry("table", 1, "s", "n", 3, 4, "f" * 32, {"a": [1]})],
        [Enumeration("rows", "count(*)", 3)],
        [Gap("i", "failed", "r")],
        [Loss("i", "p", "r")],
        [{"lsn": "0/1"}],
        "PostgreSQL",
    )
    store = LocalStore(tmp_path)
    uncounted = Enumeration("bytes", "octet_length()", 0, "too slow")
    more = replace(summary, enumerations=[*summary.enumerations, uncounted], has_definitions=True)
    for final in (
        FinalRecord("app", told, [FileRecord("data/app/x", 1, "0" * 64, 7)]) for told in (summary, more)
    ):
        write_final(store, final)
        assert read_final(store, "app") == final
    whole = store.read(layout.final_record("app"))
    for part in (b'"files"', b'"entries"', b'"sha256"', b'"kind"'):
        store.put(layout.final_record("shop"), whole.replace(part, b'"x"'))
        with pytest.raises(DamageError, match=layout.final_record("shop")):
            read_final(store, "shop")


def counts(*numbers: int) -> list[Enumeration]:
    return [Enumeration("rows", f"way {way}", number) for way, number in enumerate(numbers)]


def entry(items: int, kind="table") -> CatalogEntry:
    return CatalogEntry(kind, 1, "", "t", items, 0, "", {})


@pytest.mark.parametrize(
    ("summary", "items", "gaps", "reason"),
    [
        (SourceSummary([entry(5)], counts(5, 5)), 5, {}, None),
        (SourceSummary([entry(5)], counts(5, 6)), 5, {}, "the counts of rows differ: way 0: 5, way 1: 6"),
        (SourceSummary([entry(5)], counts(5)), 5, {}, "rows were counted in one way only (way 0: 5)"),
        (SourceSummary([], []), 0, {}, "nothing was counted"),
        (SourceSummary([entry(4)], counts(5, 5)), 5, {}, "the catalog says 4 items, the commit records 5"),
        (
            SourceSummary([entry(4)], counts(5, 5)),
            4,
            {},
            "4 items are accounted for, but none of the counts says so: [5]",
        ),
        (SourceSummary([entry(5)], counts(5, 5)), 5, {"failed": 1}, "1 item could not be exported"),
        (SourceSummary([entry(4, "bucket")], counts(5, 5)), 4, {"excluded": 1}, None),
        (SourceSummary([entry(3, "bucket")], counts(5, 5)), 3, {"excluded": 1}, "4 items are accounted for"),
        (SourceSummary([entry(0)], counts(0, 0)), 0, {}, None),
    ],
)
def test_the_account_says_what_does_not_add_up(summary, items, gaps, reason):
    reasons = reconciliation.reasons_incomplete(summary, Totals(1, items, 0), gaps)
    assert reasons == [] if reason is None else reasons[0].startswith(reason)


@pytest.mark.parametrize("name", ["", "../x", "/x", "a//b", "Ä", "A", "a b", "a\nb", "."])
def test_a_sink_and_a_workspace_refuse_names_that_a_bundle_cannot_hold(tmp_path, name):
    store = LocalStore(tmp_path)
    with pytest.raises(UsageError), StoreSink(store, "app").create(name):
        pass
    with pytest.raises(UsageError):
        StoreWorkspace(store, "app").write(name, b"")
    assert list(store.list()) == []


def test_a_sink_notes_whole_files_only(tmp_path):
    sink = StoreSink(LocalStore(tmp_path), "app")
    with sink.create("b") as file:
        file.write(b"whole")
    with suppress(ValueError), sink.create("a") as file:
        file.write(b"part")
        raise ValueError("half")
    assert [(file.key, file.size_bytes) for file in sink.files] == [("data/app/b", 5)]
    assert [info.key for info in sink._store.list()] == ["data/app/b"]


def test_what_a_sink_holds_leaves_the_location_as_it_is_and_no_upload_when_it_is_dropped(tmp_path):
    store = LocalStore(tmp_path)
    store.put("data/app/a", b"of before")
    sink = StoreSink(store, "app", held=True)
    with sink.create("a") as file:
        for _ in range(5):
            file.write(bytes(16 * 2**20))
    assert len(list(store.uploads())) == 1
    sink.drop()
    sink.publish()
    assert (store.read("data/app/a"), list(store.uploads())) == (b"of before", [])


def test_of_a_file_that_is_begun_again_the_first_is_given_up(tmp_path):
    store = LocalStore(tmp_path)
    sink = StoreSink(store, "app", held=True)
    for blocks in (5, 1):
        with sink.create("a") as file:
            for _ in range(blocks):
                file.write(bytes(16 * 2**20))
    assert list(store.uploads()) == []
    sink.publish()
    assert (store.stat("data/app/a").size_bytes, len(sink.files)) == (16 * 2**20, 1)


class SentParts(StoreWrapper):
    """Counts the parts that are sent."""

    count = 0

    def put_part(self, *words):
        self.count += 1
        return super().put_part(*words)


@pytest.mark.parametrize(("size_bytes", "sent"), [(RESUMED_BYTES, 3), (RESUMED_BYTES - 1, 4)])
def test_a_large_file_that_was_interrupted_goes_on_where_it_was(tmp_path, size_bytes, sent):
    block = bytes(RESUMED_BYTES // 4)
    for blocks in (2, 4):
        store = SentParts(LocalStore(tmp_path))
        with suppress(KeyboardInterrupt), StoreSink(store, "app").create("a", size_bytes=size_bytes) as file:
            for _ in range(blocks):
                file.write(block)
            if blocks < 4:
                raise KeyboardInterrupt
    assert (store.count, store.stat("data/app/a").size_bytes) == (sent, RESUMED_BYTES)


class Watch:
    """Notes what a sink reports."""

    def __init__(self) -> None:
        self.calls = []

    def read(self, items, size_bytes):
        self.calls.append(("read", items, size_bytes))

    def write(self, size_bytes):
        self.calls.append(("write", size_bytes))

    def land(self, size_bytes):
        self.calls.append(("land", size_bytes))


class Asked(StoreWrapper):
    """Notes for how many bytes the size of a part is asked for."""

    sizes = ()

    def part_bytes(self, size_bytes):
        self.sizes = (*self.sizes, size_bytes)
        return super().part_bytes(size_bytes)


def test_a_sink_reports_what_is_read_and_written_and_leaves_room_for_objects_that_grow(tmp_path):
    watch, store = Watch(), Asked(LocalStore(tmp_path))
    sink = StoreSink(store, "app", watch=watch)
    sink.advance(items=3)
    sink.advance(size_bytes=5)
    with sink.create("a", size_bytes=200) as file:
        assert (file.write(b"four"), file.write(b"x")) == (4, 1)
    with sink.create("b"):
        pass
    assert watch.calls == [("read", 3, 0), ("read", 0, 5), ("write", 4), ("write", 1)]
    assert store.sizes == (220, 0)


def test_large_files_that_are_held_are_made_and_small_ones_are_released(tmp_path):
    store = LocalStore(tmp_path)
    sink = StoreSink(store, "app", held=True)
    for name, blocks in (("large", 5), ("small", 0)):
        with sink.create(name) as file:
            for _ in range(blocks):
                file.write(bytes(16 * 2**20))
            file.write(b"end")
    assert list(store.list()) == []
    (small,) = sink.release()
    assert (small.key, small.data) == ("data/app/small", b"end")
    assert [(info.key, info.size_bytes) for info in store.list()] == [("data/app/large", 80 * 2**20 + 3)]


def test_once_stopped_a_file_takes_nothing_more(tmp_path):
    stop = CancellationToken()
    sink = StoreSink(LocalStore(tmp_path), "app", cancellation=stop)
    with pytest.raises(Cancelled), sink.create("a") as file:  # noqa: PT012
        stop.cancel()
        with pytest.raises(Cancelled):
            file.write(b"more")
        assert file.write(b"again") == 5


def test_a_sink_that_was_told_to_stop_writes_no_more(tmp_path):
    stop = CancellationToken()
    sink = StoreSink(LocalStore(tmp_path), "app", cancellation=stop)
    stop.cancel()
    with pytest.raises(Cancelled), sink.create("a") as file:
        file.write(b"more")
    assert sink.files == []


def test_a_sink_keeps_the_locations_error_even_if_the_exporter_swallows_it(tmp_path):
    plan = FaultPlan(Fault("put_part", fail(NoSpaceError("full"))))
    sink = StoreSink(Faulty(LocalStore(tmp_path), plan), "app")
    try:
        with sink.create("a") as file:
            for _ in range(9):
                file.write(bytes(8 * 2**20))
    except Exception as swallowed:
        del swallowed
    assert isinstance(sink.error, NoSpaceError)


def test_a_workspace_keeps_whole_files(tmp_path):
    workspace = StoreWorkspace(LocalStore(tmp_path), "app")
    assert workspace.read("plan.json") is None
    workspace.write("plan.json", b"1")
    workspace.write("inventory/0", b"2")
    assert list(workspace.names()) == ["inventory/0", "plan.json"]
    assert list(workspace.names("inv")) == ["inventory/0"]
    assert (tmp_path / "_work/app/state/plan.json").read_bytes() == b"1"
    workspace.delete("plan.json")
    workspace.delete("plan.json")
    assert workspace.read("plan.json") is None
    with pytest.raises(UsageError, match=r"'\.\./plan\.json' cannot be the name of a workspace file"):
        workspace.write("../plan.json", b"1")


def test_a_workspace_tells_of_listed_items_only_who_asks(tmp_path):
    counts = []
    StoreWorkspace(LocalStore(tmp_path), "app").listed(1)
    StoreWorkspace(LocalStore(tmp_path), "app", counts.append).listed(2)
    assert counts == [2]


@pytest.mark.parametrize("name", ["a", "media-1", "app_shop", "0" * 63])
def test_names_of_sources(name):
    assert layout.is_source_name(name)
    assert not layout.is_source_name("_" + name)
    assert not layout.is_source_name(name + "Ä")


@pytest.mark.parametrize("swallow", [True, False])
def test_a_stopped_parquet_file_is_neither_kept_nor_complained_about(tmp_path, capfd, swallow):
    store, stop = LocalStore(tmp_path), CancellationToken()
    sink = StoreSink(store, "app", cancellation=stop)
    table = pa.table({"a": range(1000)})
    with pytest.raises(Cancelled), sink.create("a.parquet") as file:  # noqa: PT012
        writer = pq.ParquetWriter(file, table.schema)
        writer.write_table(table)
        stop.cancel()
        try:
            writer.close()
        except Cancelled:
            if not swallow:
                raise
    del writer
    assert "Traceback" not in capfd.readouterr().err
    assert sink.files == []
    assert [info.key for info in store.list()] == []

"""Which sources of a bundle are followed, and who is at work on them, without servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from exporters.changes import FOLLOW
from migrate.bundle import canonical_json, layout, reconciliation
from migrate.case.model import Endpoint
from migrate.case.secrets import Secret
from migrate.changes.apply import Mark
from migrate.changes.delta_record import DeltaRecord, recorded_deltas, write_delta
from migrate.changes.remainder import BothSides
from migrate.errors import BusyError, DamageError, IncompleteError, UnreachableError, UsageError
from migrate.export.run import export
from migrate.follow import delta, followed
from migrate.follow.delta import DeltaSource, sources_to_follow
from migrate.follow.followed import (
    FollowedSource,
    RecordedBase,
    followed_sources,
    recorded_bases,
    require_base,
    reread_tables,
)
from migrate.repair.repair import TableRepair
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Silent
from migrate.storage.local.store import LocalStore
from migrate.storage.registry import open_location
from tests.bundle.test_hostile import write
from tests.export.sources import Numbers
from tests.transfer.bags import contents

OLD, NEW = Endpoint("sqlite:///old.db"), Endpoint("sqlite:///new.db")
FOLLOWED = FollowedSource("app", OLD, NEW, 7, {"slot": "s"}, "case")


class Writer:
    closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("is_read", "answer", "expected", "closed"),
    [
        (True, UnreachableError("not asked"), True, 0),
        (False, BusyError("another one applies"), True, 0),
        (False, None, False, 1),
    ],
)
def test_a_follow_is_at_work_where_the_log_is_read_or_changes_are_applied(
    monkeypatch, is_read, answer, expected, closed
):
    writer = Writer()

    def open_writer(_: FollowedSource) -> Writer:
        if answer is not None:
            raise answer
        return writer

    log = SimpleNamespace(state=lambda log: SimpleNamespace(is_read=is_read and log == {"slot": "s"}))
    monkeypatch.setattr(FollowedSource, "open_log", lambda _: log)
    monkeypatch.setattr(FollowedSource, "open_writer", open_writer)
    assert FOLLOWED.is_at_work() is expected
    assert writer.closed == closed


def test_another_moveout_is_at_work_on_a_delta_where_the_destination_is_busy(monkeypatch):
    errors: list[Exception] = [BusyError("busy")]

    def look(_: DeltaSource) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(DeltaSource, "_require_restored", look)
    delta = DeltaSource("app", OLD, NEW, None)
    assert [delta.is_at_work(), delta.is_at_work()] == [True, False]


def test_engines_that_do_not_say_so_have_no_gaps_of_definitions():
    assert FOLLOWED.definition_gaps(["t"]) == ()


def test_a_destination_of_another_snapshot_is_refused(monkeypatch):
    monkeypatch.setattr(FollowedSource, "open_log", lambda _: SimpleNamespace(show="at {}".format))
    require_base(FOLLOWED, Mark(7))
    with pytest.raises(IncompleteError, match=r"a snapshot at at 6; the changes come after one at at 7"):
        require_base(FOLLOWED, Mark(6))


BASE = {"position": 9, "log": {"slot": "s"}, "name": "case_1"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    made = tmp_path_factory.mktemp("made")
    sources = [Numbers(name=name, count=5) for name in ("app", "shop", "media")]
    export(sources, open_location(str(made)), workers=1, progress=Silent())
    return contents(LocalStore(made))


def with_base(exported: Mapping[str, bytes], directory: Path, base: Any) -> LocalStore:
    """Of three sources one is followed, since its second snapshot; another one was, and is no more."""
    files = dict(exported)
    positions = {"app": [{"lsn": 1}, {FOLLOW: base}], "shop": [{FOLLOW: base}, {"lsn": 2}], "media": []}
    entries = [
        replace(entry, summary=replace(entry.summary, positions=positions[entry.name]))
        for entry in reconciliation.decode(files[layout.RECONCILIATION])
    ]
    files[layout.RECONCILIATION] = canonical_json.encode(reconciliation.reconciliation_json(entries))
    return write(directory, files)


@pytest.fixture(scope="module")
def bundle(exported: Mapping[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return with_base(exported, tmp_path_factory.mktemp("changed"), BASE)


def test_the_newest_snapshot_says_whether_a_source_is_followed(bundle, tmp_path):
    (base,) = recorded_bases(bundle)
    assert (base.source, base.position, base.log, base.case) == ("app", 9, {"slot": "s"}, "case_1")
    assert base.followed(OLD, NEW) == FollowedSource("app", OLD, NEW, 9, {"slot": "s"}, "case_1")
    assert list(recorded_bases(LocalStore(tmp_path))) == []


@pytest.mark.parametrize(
    "base",
    [
        BASE | {"position": "9"},
        BASE | {"position": -1},
        BASE | {"position": 2**63},
        BASE | {"log": ["slot"]},
        BASE | {"name": None},
        {"position": 9},
        [9],
    ],
)
def test_a_base_that_is_none_is_damage(exported, tmp_path, base):
    with pytest.raises(DamageError, match=r"reconciliation\.json"):
        list(recorded_bases(with_base(exported, tmp_path, base)))


SLOT = {
    "slot": "s",
    "publication": "p",
    "system": "7",
    "snapshot": "5:9:6,7",
    "snapshot_end": 2**63,
    "access": {"a": "b"},
}
BINLOG = {
    "server": "1:host:3306",
    "database": "d",
    "stem": "binlog",
    "position": 4,
    "apart": ["t"],
    "folds": True,
}


@pytest.mark.parametrize(
    ("url", "log", "name", "value"),
    [
        *(
            ("postgresql://h/d", SLOT, name, 5)
            for name in ("slot", "publication", "system", "snapshot", "access")
        ),
        *(("postgresql://h/d", SLOT, "snapshot", text) for text in ("5:9", "a:b:c")),
        *(("postgresql://h/d", SLOT, name, "x") for name in ("timeline", "snapshot_end")),
        *(("mysql://h/d", BINLOG, name, 5) for name in ("server", "database", "stem", "apart", "folds")),
        ("mysql://h/d", BINLOG, "position", "4"),
        ("mysql://h/d", BINLOG, "apart", [None]),
        ("mysql://h/d", BINLOG, "definitions", {"a": 1}),
    ],
)
def test_a_log_of_a_base_with_other_values_than_its_engine_needs_is_damage(exported, url, log, name, value):
    def changes(log):
        entry = reconciliation.decode(exported[layout.RECONCILIATION])[0]
        position = {FOLLOW: BASE | {"log": log}}
        return replace(entry, url=url, summary=replace(entry.summary, positions=[position])).changes()

    assert changes(log).log == log
    with pytest.raises(DamageError, match=rf"reconciliation\.json.*{name}"):
        changes(log | {name: value})
    if name in {"slot", "publication", "system", "server", "database", "stem", "apart", "position"}:
        with pytest.raises(DamageError, match=name):
            changes({key: log[key] for key in log.keys() - {name}})


def test_sources_with_a_destination_are_followed_and_there_must_be_one(bundle):
    (source,) = followed_sources(bundle, {"app": OLD, "shop": OLD}, {"app": NEW, "shop": NEW})
    assert (source.name, source.source, source.destination) == ("app", OLD, NEW)
    for sources, destinations in (({"app": OLD}, {}), ({}, {"app": NEW}), ({"shop": OLD}, {"shop": NEW})):
        with pytest.raises(UsageError, match="no source of"):
            followed_sources(bundle, sources, destinations)
        assert followed_sources(bundle, sources, destinations, may_be_none=True) == []


@pytest.mark.parametrize(
    ("recorded", "every", "gone", "by_log", "by_delta"),
    [
        ([], False, None, ["app"], []),
        (["shop"], False, None, ["app"], ["shop"]),
        (["app"], False, None, [], ["app"]),
        ([], True, False, ["app"], ["shop"]),
        ([], True, True, [], ["app", "shop"]),
        (["app", "shop"], True, None, [], ["app", "shop"]),
    ],
)
def test_sources_without_a_log_get_delta_passes_for_good_once_they_are_asked_for(
    bundle, tmp_path, monkeypatch, recorded, every, gone, by_log, by_delta
):
    """Buckets have none; nor is the log of a source asked for unless others get passes, too."""

    def is_log_gone(_store: object, base: RecordedBase, source: Endpoint) -> bool:
        assert (base.source, source, gone is None) == ("app", OLD, False)
        return bool(gone)

    monkeypatch.setattr(delta, "_is_log_gone", is_log_gone)
    store = write(tmp_path, contents(bundle))
    for name in recorded:
        write_delta(store, DeltaRecord(name))
    bucket, names = Endpoint("s3://old"), ("app", "shop")
    sources = dict.fromkeys(names, OLD) | {"media": bucket, "only here": OLD}
    options = {"every": True} if every else {}
    both = sources_to_follow(
        store, sources, dict.fromkeys(names, NEW) | {"media": Endpoint("s3://new")}, **options
    )
    kinds = {FollowedSource: by_log, DeltaSource: by_delta}
    for kind, expected in kinds.items():
        assert [source.name for source in both if isinstance(source, kind)] == expected
    assert [record.source for record in recorded_deltas(store)] == by_delta


def test_without_a_source_to_follow_there_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="no source of"):
        sources_to_follow(LocalStore(tmp_path), {"app": OLD}, {"app": NEW})


@pytest.mark.parametrize(("can_log", "can_write"), [(False, False), (False, True), (True, False)])
def test_a_table_cannot_be_read_again_where_the_log_cannot_say_what_came_since(
    monkeypatch, can_log, can_write
):
    writer = RereadWriter(Mark(7)) if can_write else Writer()
    log = RereadingLog() if can_log else SimpleNamespace()
    monkeypatch.setattr(FollowedSource, "open_log", lambda _: log)
    monkeypatch.setattr(FollowedSource, "open_writer", lambda _: writer)
    with pytest.raises(UsageError, match="cannot be read again"):
        reread_tables(FOLLOWED, "public", "t", cancellation=CancellationToken(), note=print)
    assert writer.closed == 1


class RereadingLog:
    """A log that reads two tables again, since foreign keys connect them."""

    def show(self, position: int) -> str:
        return f"at {position}"

    @contextmanager
    def reread(self, objects: object, schema: str, name: str, note: object) -> Iterator[SimpleNamespace]:
        assert objects == {"slot": "s"}
        yield SimpleNamespace(tables=[(schema, name), ("", "u")], rows="rows", position=42)


class RereadWriter(Writer):
    def __init__(self, mark: Mark | None) -> None:
        self.kept, self.calls = mark, []

    def mark(self) -> Mark | None:
        return self.kept

    def begin_again(self, tables: list[str]) -> None:
        self.calls.append(("begin", tables))

    def end_again(self, tables: list[str], position: int) -> None:
        self.calls.append(("end", tables, position))


@pytest.fixture
def reread(monkeypatch):
    """Read a table again by a writer, where repairs have these results; return what was noted."""

    def read(writer: RereadWriter, repaired: list[TableRepair]) -> tuple[object, list[str]]:
        def repair(rows, destination, tables, *, cancellation):
            assert (rows, destination, tables) == ("rows", NEW, [("public", "t"), ("", "u")])
            assert not cancellation.is_cancelled
            writer.calls.append("repair")
            return repaired

        notes: list[str] = []
        monkeypatch.setattr(FollowedSource, "open_log", lambda _: RereadingLog())
        monkeypatch.setattr(FollowedSource, "open_writer", lambda _: writer)
        monkeypatch.setattr(followed, "repair_named_tables", repair)
        read_again = reread_tables(
            FOLLOWED, "public", "t", cancellation=CancellationToken(), note=notes.append
        )
        return read_again, notes

    return read


TABLES = ["public.t", "u"]


def test_tables_that_are_read_again_are_left_out_until_they_are_equal(reread):
    writer, repaired = RereadWriter(Mark(7)), [TableRepair(name, inserted=1) for name in TABLES]
    read_again, notes = reread(writer, repaired)
    assert read_again == (dict(zip([("public", "t"), ("", "u")], repaired, strict=True)), "at 42")
    assert notes == ["public.t is read again together with u: foreign keys that change rows connect them"]
    assert writer.calls == [("begin", TABLES), "repair", ("end", TABLES, 42)]
    assert writer.closed == 1


def test_tables_that_could_not_be_made_equal_stay_left_out(reread):
    writer = RereadWriter(Mark(7))
    with pytest.raises(IncompleteError, match=r"^u could not be made equal: refused$") as raised:
        reread(writer, [TableRepair("public.t"), TableRepair("u", reason="refused")])
    assert "until then changes of public.t, u are left out" in raised.value.next_step
    assert (writer.calls, writer.closed) == ([("begin", TABLES), "repair"], 1)


@pytest.mark.parametrize("mark", [None, Mark(6)])
def test_tables_of_a_destination_that_was_not_restored_are_not_read_again(reread, mark):
    writer = RereadWriter(mark)
    with pytest.raises(IncompleteError, match="was not restored from this bundle yet"):
        reread(writer, [])
    assert (writer.calls, writer.closed) == ([], 1)


def test_parts_of_the_destinations_engine_get_what_they_need(monkeypatch):
    activated = []
    parts = {
        "writer": lambda *words: ("writer", *words),
        "mark": lambda *words: ("mark", *words),
        "gaps": lambda *words: ["gaps", *words],
        "activation": lambda *words: activated.append(words),
    }
    engine = SimpleNamespace(
        change_writer="writer", change_mark="mark", definition_gaps="gaps", activation="activation"
    )
    monkeypatch.setattr(followed, "load_part", parts.__getitem__)
    monkeypatch.setattr(Endpoint, "engine", engine)
    secrets = {side: {"password": side} for side in ("old", "new")}
    for side in secrets:
        monkeypatch.setenv(side.upper(), side)
    old, new = (
        replace(endpoint, secrets={"password": Secret(f"env:{side.upper()}")})
        for endpoint, side in ((OLD, "old"), (NEW, "new"))
    )
    source = replace(FOLLOWED, source=old, destination=new)
    assert source.open_writer() == ("writer", NEW.url, secrets["new"], "app", {"slot": "s"})
    assert source.applied_mark() == ("mark", NEW.url, secrets["new"], "app")
    sides = BothSides(OLD.url, secrets["old"], NEW.url, secrets["new"])
    assert source.definition_gaps(["t"]) == ("gaps", sides, ["t"], {"slot": "s"})
    source.activate()
    engine.activation = ""
    source.activate()
    assert activated == [(NEW.url, secrets["new"], "app")]
    for engine.note_running in ("activation", ""):
        source.note_running()
    assert activated[1:] == [(sides, "app")]


def test_a_log_is_opened_where_the_case_or_else_the_bundle_says(monkeypatch):
    monkeypatch.setattr(followed, "open_change_log", lambda endpoint, case: (endpoint.url, case))
    base = RecordedBase("app", "x://recorded", 9, {}, "case_1")
    assert base.open_log(OLD) == (OLD.url, "case_1")
    assert base.open_log(None) == ("x://recorded", "case_1")
    assert FOLLOWED.open_log() == (OLD.url, "case")
    folder = FOLLOWED.folder(LocalStore("/nowhere"))
    assert folder._prefix == "changes/app/0000000000000007/"

"""What ``status`` concludes of followed changes, without servers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from exporters.changes import LogState
from migrate.case.model import Endpoint
from migrate.changes import segments
from migrate.changes.apply import Mark
from migrate.changes.delta_record import DeltaRecord, write_delta
from migrate.changes.segments import START, Place, SegmentFolder
from migrate.errors import GoneError, MoveoutError, NotAllowedError, UnreachableError
from migrate.follow import status
from migrate.follow.followed import RecordedBase
from migrate.follow.status import FollowStatus, WaitingChanges, follow_status, kept_things
from migrate.storage.local.store import LocalStore
from tests.changes.test_apply import transaction


def status_with(**more: object) -> FollowStatus:
    return FollowStatus("app", "1", "2", 3, 4, **{"lag_bytes": 0, "applied": "2", "is_read": True, **more})


def waiting(age: float | None) -> WaitingChanges:
    return WaitingChanges(1, 1, 1, age)


@pytest.mark.parametrize(
    ("more", "drained"),
    [
        ({}, True),
        ({"applied": ""}, False),
        ({"lag_bytes": None}, False),
        ({"lost": True}, False),
        ({"lag_bytes": 5, "lag_seconds": 9.9}, True),
        ({"lag_bytes": 5, "lag_seconds": 10.0}, False),
        ({"lag_bytes": 5, "lag_seconds": None}, False),
        ({"lag_bytes": 0, "lag_seconds": 99.0}, True),
        ({"waiting": waiting(9.9)}, True),
        ({"waiting": waiting(10.0)}, False),
        ({"waiting": waiting(None)}, False),
        ({"waiting": waiting(1.0), "is_read": False}, False),
        ({"waiting": waiting(1.0), "is_read": None}, True),
        ({"is_read": False}, True),
    ],
)
def test_a_cutover_can_begin_where_next_to_nothing_is_left_and_somebody_applies_it(more, drained):
    assert status._is_drained(status_with(**more)) is drained


@pytest.mark.parametrize(
    ("before", "now", "seconds", "left"),
    [
        (100, 50, 3.0, 3.0),
        (100, 90, 3.0, 27.0),
        (100, 0, 3.0, 0.0),
        (100, 100, 3.0, None),
        (100, 101, 3.0, None),
    ],
)
def test_how_long_the_rest_takes_at_the_speed_of_now(before, now, seconds, left):
    assert status._seconds_left(before, now, seconds) == left


def test_changes_of_a_few_segments_are_counted():
    assert list(status._counted(3, 5)) == [3, 4, 5]
    assert len(status._counted(1, 50)) == len(status._counted(1, 51)) == 50
    assert [WaitingChanges(1, count, 1, None).is_counted for count in (50, 51)] == [True, False]


@pytest.mark.parametrize(
    ("limit", "is_reserved", "retained", "warns"),
    [(1000, True, 1000, True), (None, True, 1000, False), (1000, False, 1000, False), (1000, True, 1, False)],
)
def test_a_server_that_keeps_nearly_as_much_as_it_may_is_warned_of(limit, is_reserved, retained, warns):
    state = SimpleNamespace(is_reserved=is_reserved, retained_bytes=retained)
    assert bool(status._near_limit(state, SimpleNamespace(retain_bytes=limit))) is warns


def test_nothing_is_kept_where_nothing_was_followed(tmp_path):
    store = LocalStore(tmp_path)
    assert kept_things(store, {}, {}) == []
    store.put("changes/app/1.json", b"{}")
    store.put("changes/app/2.json", b"{}")
    (kept,) = kept_things(store, {}, {})
    assert kept.is_at_location
    assert kept.what.startswith("2 files of changes at ")
    assert kept.remove()
    assert list(store.list("changes/")) == []


OLD, NEW = Endpoint("postgresql://old/app"), Endpoint("postgresql://new/app")
BASE = RecordedBase("app", "postgresql://old/app", 100, {"slot": "s"}, "case_app")
STATE = LogState(end=150, acknowledged=115, retained_bytes=900, is_read=True)


class Servers:
    """Stands for the log of the source, and for the destination. What is an error is raised."""

    def __init__(self):
        self.states, self.marks, self.asked = [STATE], [Mark(100, Place(1, 4), 110)], []
        self.refusing, self.gaps, self.leaves_objects = [], ("the view v",), True
        self.dropped, self.is_marked, self.closed = [], True, 0

    def state(self, objects, after):
        self.asked.append(after)
        return self._next(self.states)

    def applied_mark(self):
        return self._next(self.marks)

    def _next(self, answers):
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def show(self, position):
        return f"at {position}"

    def distance_bytes(self, start, end):
        return end - start

    def detour(self):
        return "by SQL"

    def troubled_tables(self, objects):
        return [SimpleNamespace(sentence=sentence) for sentence in self.refusing]

    def definition_gaps(self, skipped):
        if isinstance(self.gaps, MoveoutError):
            raise self.gaps
        return (*self.gaps, *skipped)

    def drop(self, objects):
        self.dropped.append(objects)
        return True

    def open_writer(self):
        return self

    def mark(self):
        return Mark(100) if self.is_marked else None

    def forget(self):
        self.is_marked = False

    def close(self):
        self.closed += 1


@pytest.fixture
def servers(monkeypatch):
    servers = Servers()
    monkeypatch.setattr(status, "recorded_bases", lambda _: [BASE])
    monkeypatch.setattr(status, "_SPEED_SECONDS", 0.0)
    monkeypatch.setattr(RecordedBase, "open_log", lambda _, endpoint: servers)
    monkeypatch.setattr(RecordedBase, "followed", lambda _, source, destination: servers)
    return servers


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Of two segments the first one is applied. They were written 100 s and 1 s ago."""
    moments = [(datetime.now(UTC) - timedelta(seconds=seconds)).isoformat() for seconds in (100, 1)]
    monkeypatch.setattr(segments, "_now", lambda: moments.pop(0) if moments else "")
    store = LocalStore(tmp_path)
    folder = SegmentFolder(store, "app", 100)
    folder.begin()
    first = folder.write(transaction(110, b"a", b"b"), None, START, 110)
    folder.write([*transaction(115, b"c"), *transaction(120, *[b"d"] * 5)], first, Place(1, 4), 120)
    return store


def the_status(store, sources=OLD, destinations=NEW):
    (only,) = follow_status(
        store, {"app": sources} if sources else {}, {"app": destinations} if destinations else {}
    )
    return only


def test_how_far_a_source_is_says_each_side(store, servers):
    servers.marks = [Mark(100, Place(1, 4), 110, ("t",))]
    app = the_status(store)
    assert (app.source, app.base, app.captured, app.applied) == ("app", "at 100", "at 120", "at 110")
    sizes = sum(info.size_bytes for info in store.list("changes/app/"))
    assert (app.segments, app.size_bytes, app.lag_bytes, app.retained_bytes) == (2, sizes, 30, 900)
    assert 0 <= app.lag_seconds < 60
    assert (app.is_read, app.problem, app.lost, app.detour) == (True, "", False, "by SQL")
    assert (app.skipped, app.undefined) == (("t",), ("the view v", "t"))
    assert (app.waiting.changes, app.waiting.segments, app.waiting.lag_bytes) == (6, 1, 10)
    assert 0 <= app.waiting.lag_seconds < 60
    assert servers.asked[0] == 120
    servers.states = [replace(STATE, end=120)]
    level = the_status(store)
    assert (level.lag_bytes, level.lag_seconds, level.cutover_seconds) == (0, 0, 0.0)
    servers.states = [replace(STATE, acknowledged=130)]
    assert the_status(store).captured == "at 130"


@pytest.mark.parametrize(
    ("place", "waiting"),
    [
        (START, (8, 2)),
        (Place(1, 4), (6, 1)),
        (Place(2, 3), (3, 1)),
        (Place(2, 9), (1, 1)),
        (Place(2, 10), None),
    ],
)
def test_what_waits_is_what_comes_after_the_mark(store, servers, place, waiting):
    servers.marks = [Mark(100, place, 110)]
    found = the_status(store).waiting
    assert (found and (found.changes, found.segments)) == waiting
    assert found is None or found.lag_seconds // 50 == (2 if found.segments == 2 else 0), "of the oldest one"


def test_a_rest_takes_as_long_as_at_the_speed_of_now(store, servers, monkeypatch):
    """The second measurement comes some seconds later."""
    monkeypatch.setattr(status, "_DRAINED_SECONDS", 0.0)
    slept = []
    clock = SimpleNamespace(monotonic=lambda: 7.0 + sum(slept), sleep=slept.append)
    monkeypatch.setattr(status, "time", clock)
    monkeypatch.setattr(status, "_SPEED_SECONDS", 3.0)
    servers.marks = [Mark(100, Place(1, 4), 110), Mark(100, Place(2, 3), 130)]
    assert the_status(store).cutover_seconds == 3.0
    assert (slept, servers.asked) == ([3.0], [120, 130])
    for second in (None, UnreachableError("away")):
        servers.marks = [Mark(100, Place(1, 4), 110), second]
        assert the_status(store).cutover_seconds is None
    for unknown in ({"sources": None}, {"destinations": None}):
        slept.clear()
        assert (the_status(store, **unknown).cutover_seconds, slept) == (None, [])
    servers.marks, servers.states = [Mark(100, Place(1, 4), 110)], [replace(STATE, lost="the slot is gone")]
    assert (the_status(store).cutover_seconds, slept) == (None, [])


def test_a_source_whose_server_is_not_asked_has_what_lies_at_the_location(store, servers):
    app = the_status(store, None)
    assert (app.captured, app.applied, app.segments, app.problem, app.waiting) == ("at 120", "", 2, "", None)
    assert (app.lag_bytes, app.lag_seconds, app.retained_bytes, app.is_read) == (None, None, None, None)
    assert servers.asked == []
    without_destination = the_status(store, OLD, None)
    assert (without_destination.lag_bytes, without_destination.applied) == (30, "")
    empty = LocalStore(store.root / "empty")
    SegmentFolder(empty, "app", 100).begin()
    fresh = the_status(empty)
    assert (fresh.captured, fresh.segments, fresh.lag_seconds, fresh.waiting) == ("at 115", 0, None, None)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"states": [UnreachableError("no answer")]}, "no answer"),
        ({"states": [replace(STATE, lost="the slot is gone")]}, "the slot is gone"),
        ({"refusing": ["t refuses", "u refuses"]}, "t refuses; u refuses"),
        ({"marks": [UnreachableError("away")]}, "how far the changes were applied is not known: away"),
        (
            {"marks": [NotAllowedError("no rights")]},
            "how far the changes were applied is not known: no rights",
        ),
        ({"marks": [MoveoutError("it broke")]}, "how far the changes were applied is not known: it broke"),
        ({"marks": [GoneError("no database")]}, ""),
        ({"marks": [UnreachableError("away")], "states": [MoveoutError("no answer")]}, "no answer"),
    ],
)
def test_the_first_problem_is_named(store, servers, changes, problem):
    vars(servers).update(changes)
    app = the_status(store)
    assert (app.problem, app.lost) == (problem, problem == "the slot is gone")
    assert (app.applied, app.undefined) == (("", ()) if "marks" in changes else ("at 110", ("the view v",)))


def test_definitions_that_cannot_be_compared_leave_known_how_far_the_changes_were_applied(store, servers):
    servers.gaps = UnreachableError("away")
    app = the_status(store)
    assert app.problem == "definitions of both sides could not be compared: away"
    assert (app.applied, app.undefined) == ("at 110", ())


def test_a_server_that_keeps_nearly_too_much_is_a_problem(store, servers):
    source = replace(OLD, retain_bytes=1000)
    assert the_status(store, source).problem == (
        "the server may keep 1 kB; a capture that finds more gives the changes up"
    )


def test_a_folder_of_changes_that_is_away_is_named(tmp_path, servers):
    app = the_status(LocalStore(tmp_path))
    assert "has no folder changes/app/" in app.problem
    assert " → mount it, or name the location" in app.problem
    servers.states = [UnreachableError("no answer")]
    assert the_status(LocalStore(tmp_path)).problem == "no answer"


def test_a_destination_of_another_snapshot_has_not_applied_anything(store, servers):
    servers.marks = [Mark(90, Place(1, 4), 110, ("t",))]
    app = the_status(store)
    assert (app.applied, app.waiting, app.skipped, app.cutover_seconds) == ("", None, ("t",), None)


def test_a_source_that_delta_passes_keep_up_has_no_status_of_its_log(store, servers):
    write_delta(store, DeltaRecord("app"))
    assert follow_status(store, {"app": OLD}, {"app": NEW}) == []


def test_what_is_kept_is_removed_at_the_source_then_at_the_destination_then_at_the_location(store, servers):
    kept = kept_things(store, {}, {"app": NEW})
    assert [(thing.what.partition(f" {store.location}")[0], thing.is_at_location) for thing in kept] == [
        ("app: what keeps its changes at postgresql://old/app, called after case_app", False),
        ("app: how far its changes were applied, at postgresql://new/app", False),
        ("5 files of changes at", True),
    ]
    assert kept[0].remove()
    assert servers.dropped == [{"slot": "s"}]
    assert (kept[1].remove(), kept[1].remove(), servers.closed) == (True, False, 2)
    servers.leaves_objects = False
    assert [thing.is_at_location for thing in kept_things(store, {"app": OLD}, {})] == [True]


def test_what_an_export_has_made_before_it_was_killed_is_kept_too(store, servers, monkeypatch):
    logs = []
    names = {"app": OLD.url, "shop": "postgresql://old/shop", "file": "sqlite:///old.db"}
    state = SimpleNamespace(sources=[SimpleNamespace(name=name, url=url) for name, url in names.items()])
    monkeypatch.setattr(status, "read_state", lambda _: state)
    monkeypatch.setattr(status, "followed_name", lambda case, _: case)
    monkeypatch.setattr(
        status, "open_change_log", lambda endpoint, name: logs.append((endpoint.url, name)) or servers
    )
    shop = Endpoint("postgresql://elsewhere/shop")
    first, *_ = kept_things(store, {"shop": shop}, {}, case="case")
    assert logs == [(shop.url, "case_shop")]
    assert first.what == (f"shop: what an unfinished export keeps at {shop.shown}, called after case_shop")
    assert first.remove()
    assert servers.dropped == [{}]
    servers.leaves_objects = False
    assert [thing.is_at_location for thing in kept_things(store, {}, {}, case="case")] == [True]

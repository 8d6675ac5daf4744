"""The old databases of a cutover are held, asked, and released without the command: two files of SQLite."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from migrate.case.model import Endpoint
from migrate.cli.cutover import _release
from migrate.custody.source_holds import source_hold, undo_file
from migrate.custody.source_holds.sqlite import SqliteHold
from migrate.errors import BusyError, UnreachableError, UsageError
from migrate.follow import held_sources
from migrate.follow.delta import DeltaSource
from migrate.follow.held_sources import HeldSources, open_holds
from migrate.runtime.cancellation import CancellationToken

NAMES = ("first", "second")


@pytest.fixture
def sources(tmp_path):
    return [delta_source(tmp_path / f"{name}.db") for name in NAMES]


def delta_source(path):
    path.touch(0o644)
    path.chmod(0o644)
    return DeltaSource(path.stem, Endpoint(f"sqlite://{path}"), Endpoint("sqlite:///nowhere.db"), None)


@pytest.fixture
def held(sources, tmp_path):
    with open_holds(sources) as holds:
        plan = source_hold.planned(tmp_path / "undo.json", holds, undo_file.new("cutover"))
        yield HeldSources(tmp_path / "undo.json", holds, plan)


def modes(held):
    return [f"{(held.file.parent / f'{name}.db').stat().st_mode & 0o777:o}" for name in NAMES]


@contextmanager
def written_by_another(*paths):
    """Let another process have files open for writing."""
    script = "import sys; files = [open(name, 'r+b') for name in sys.argv[1:]]; print(flush=True); input()"
    words = [sys.executable, "-c", script, *paths]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield
        process.stdin.close()


def opened_holds(monkeypatch, *errors):
    """Return a list of what is opened from now on; at first each of ``errors`` is raised."""
    open_hold, opened, left = source_hold.open_hold, [], list(errors)

    def open_or_fail(endpoint, request):
        opened.append((endpoint.url.rpartition("/")[2], request.whole_server))
        if left and (error := left.pop(0)):
            raise UnreachableError(error)
        return open_hold(endpoint, request)

    monkeypatch.setattr(source_hold, "open_hold", open_or_fail)
    return opened


def test_each_source_is_held_and_released(held, sources, monkeypatch):
    closed, asked = [], []
    monkeypatch.setattr(SqliteHold, "close_write_paths", lambda _, since: closed.append(since) or 0)
    monkeypatch.setattr(SqliteHold, "open_write_paths", lambda _, since: asked.append(since) or [])
    held.place()
    assert modes(held) == ["444", "444"]
    since = [undo_file.read(held.file).sources[name].since for name in NAMES]
    assert (closed, asked) == (since, since)
    held.require_still(sources)
    held.release()
    assert (modes(held), held.file.exists()) == (["644", "644"], False)
    held.release()


def test_a_source_that_another_program_can_write_to_is_not_held(held, sources, tmp_path):
    with written_by_another(*(tmp_path / f"{name}.db" for name in NAMES)):
        with pytest.raises(BusyError, match=r"can still be written to: first: .*first\.db"):
            held.place()
        with pytest.raises(BusyError, match="first"):
            held.require_still(sources)
    held.require_still(sources)
    (tmp_path / "second.db").chmod(0o644)
    with pytest.raises(BusyError, match="second"):
        held.require_still(sources)


def test_a_source_whose_session_has_ended_is_asked_by_another_one(held, sources, tmp_path, monkeypatch):
    changes = SqliteHold.changes

    def ended(hold):
        if hold is held.holds["second"]:
            raise UnreachableError("the session has ended")
        return changes(hold)

    held.place()
    monkeypatch.setattr(SqliteHold, "changes", ended)
    opened = opened_holds(monkeypatch)
    held.require_still(sources)
    assert opened == [("second.db", True)]
    (tmp_path / "second.db").chmod(0o644)
    with pytest.raises(BusyError, match="second"):
        held.require_still(sources)


def test_what_somebody_else_has_changed_meanwhile_is_left_alone(held, tmp_path):
    held.place()
    (tmp_path / "first.db").chmod(0o600)
    with pytest.raises(UsageError, match="was changed since by somebody else"):
        held.release()
    assert modes(held) == ["600", "444"]


def test_holds_are_closed_with_their_context(sources, monkeypatch):
    closed, opened = [], opened_holds(monkeypatch)
    monkeypatch.setattr(SqliteHold, "close", lambda hold: closed.append(hold.url.rpartition("/")[2]))
    with open_holds(sources) as holds:
        assert list(holds) == list(NAMES)
        assert closed == []
    assert sorted(closed) == ["first.db", "second.db"]
    assert opened == [("first.db", False), ("second.db", False)]


def test_after_an_error_each_is_released_as_soon_as_it_answers(held, sources, monkeypatch):
    monkeypatch.setattr(held_sources, "_POLL_SECONDS", 0.01)
    held.place()
    reports, opened = [], opened_holds(monkeypatch, "away", "", "away", "gone", "away")
    held.release_after_error(sources, CancellationToken(), reports.append)
    assert opened == [("first.db", True), ("second.db", True), *[("first.db", True)] * 4]
    assert (modes(held), held.file.exists()) == (["644", "644"], False)
    words = "first is held, and is released as soon as possible: "
    assert reports == [f"{words}{error}" for error in ("away", "gone", "away")]


def test_an_undo_releases_each_that_answers_and_the_others_when_it_is_repeated(held, sources, monkeypatch):
    held.place()
    opened_holds(monkeypatch, "away")
    undone, still_held = _release(sources, held.file)
    assert (len(undone), list(still_held)) == (1, ["first"])
    assert (modes(held), list(undo_file.read(held.file).sources)) == (["444", "644"], ["first"])
    opened_holds(monkeypatch, "away")
    with pytest.raises(UnreachableError, match="away"):
        _release(sources[:1], held.file)
    assert len(_release(sources, held.file)[0]) == 1
    assert (modes(held), held.file.exists()) == (["644", "644"], False)
    assert _release(sources, held.file) == ([], {})


def test_nothing_is_opened_where_nothing_was_held(held, sources, monkeypatch):
    opened = opened_holds(monkeypatch)
    held.release_after_error(sources, CancellationToken(), print)
    assert opened == []


def test_one_that_does_not_answer_for_a_while_stays_held(held, sources, monkeypatch):
    held.place()
    monkeypatch.setattr(held_sources, "_RELEASE_SECONDS", 0.0)
    opened_holds(monkeypatch, "away")
    with pytest.raises(UnreachableError, match="away"):
        held.release_after_error(sources, CancellationToken(), print)
    monkeypatch.setattr(held_sources, "_RELEASE_SECONDS", 60.0)
    cancellation = CancellationToken()
    cancellation.cancel()
    opened_holds(monkeypatch, "gone")
    with pytest.raises(UnreachableError, match="gone"):
        held.release_after_error(sources, cancellation, print)
    assert (modes(held), held.file.exists()) == (["444", "444"], True)

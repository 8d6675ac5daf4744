"""A source is compared with a live one by the part that its engine brings."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from exporters.engine import Engine
from exporters.errors import SourceSnapshotLostError, SourceUnreachableError
from migrate.bundle.findings import Finding
from migrate.engines import registry
from migrate.errors import UsageError
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.progress import Silent
from migrate.verify import compare
from migrate.verify.compare import ComparisonRequest, SourceComparison, compare_source

SHELF = Engine("Shelf", ("shelf",), "", contents="objects", comparison=f"{__name__}:look_at_shelf")


def look_at_shelf(request: ComparisonRequest) -> SourceComparison:
    return SourceComparison([Finding("book", "is not there", request.url, repr(request))])


def request_for(url: str) -> ComparisonRequest:
    cancellation = CancellationToken()
    return ComparisonRequest(None, "app", url, 3, Silent(), read_all=True, cancellation=cancellation)


def test_a_comparison_of_an_engine_is_asked_with_all_that_was_asked_for(monkeypatch):
    monkeypatch.setattr(registry, "_by_scheme", lambda: {"shelf": SHELF})
    request = request_for("shelf://one")
    assert compare_source(request) == look_at_shelf(request)


def test_what_no_engine_knows_cannot_be_compared():
    with pytest.raises(UsageError, match="not a database or bucket that moveout supports"):
        compare_source(request_for("shelf://one"))


class Attempts(Silent):
    """Comparisons that raise these errors one after the other, by a clock that only waiting moves."""

    def __init__(self, monkeypatch, *errors):
        self.left, self.now, self.heard = list(errors), 100.0, []
        monkeypatch.setattr(compare, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(registry, "_by_scheme", lambda: {"shelf": SHELF})
        monkeypatch.setattr(f"{__name__}.look_at_shelf", self.look)
        self.request = ComparisonRequest(None, "app", "shelf://one", 3, self, cancellation=self)

    def look(self, _request):
        if self.left and (error := self.left.pop(0)):
            raise error
        return SourceComparison([], ["a table"])

    def run(self):
        return compare_source(self.request)

    def note(self, message):
        self.heard.append(message)

    def end(self, *, stopped=False):
        self.heard.append(f"stopped {stopped}")

    def sleep(self, seconds):
        self.now += seconds

    def check(self):
        if self.now == 666:
            raise Cancelled


LOST, AWAY = SourceSnapshotLostError("the snapshot is lost"), SourceUnreachableError("away")


def test_a_comparison_whose_snapshot_is_lost_begins_again_under_a_new_one(monkeypatch):
    attempts = Attempts(monkeypatch, LOST, AWAY, LOST)
    assert attempts.run() == SourceComparison([], ["a table"])
    note = "! the snapshot is lost; app is compared from its beginning, under a new snapshot"
    assert attempts.heard == [note, "stopped True", "stopped True", note, "stopped True"]


def test_a_snapshot_that_is_lost_again_and_again_is_an_error(monkeypatch):
    attempts = Attempts(monkeypatch, *[LOST] * 9)
    with pytest.raises(SourceSnapshotLostError):
        attempts.run()
    assert (len(attempts.left), len(attempts.heard)) == (6, 4)


def test_a_server_that_begins_anew_is_waited_for_a_while(monkeypatch):
    attempts = Attempts(monkeypatch, LOST, *[AWAY] * 99)
    with pytest.raises(SourceUnreachableError, match="away"):
        attempts.run()
    assert (attempts.now, len(attempts.left)) == (190, 99 - 45)
    attempts = Attempts(monkeypatch, AWAY, AWAY)
    with pytest.raises(SourceUnreachableError, match="away"):
        attempts.run()
    assert attempts.left == [AWAY], "nothing was lost, so nothing begins anew"


def test_who_waits_for_a_server_can_be_stopped(monkeypatch):
    attempts = Attempts(monkeypatch, *[LOST, AWAY] * 9)
    attempts.now = 664
    with pytest.raises(Cancelled):
        attempts.run()
    assert len(attempts.left) == 17

"""The digests of both sides, and what is said where they differ; tables in memory."""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from exporters.engine import LiveTables, WriteState
from exporters.row_digest import RowsDigest
from migrate.case.model import Endpoint
from migrate.errors import UnreachableError
from migrate.follow import table_digests
from migrate.follow.table_digests import (
    as_recorded,
    differences,
    live_reader,
    read_digests,
    read_states,
    recorded_digests,
    uncounted_sessions,
)
from migrate.runtime.cancellation import CancellationToken, Cancelled

T, U = ("public", "t"), ("", "u")


class Counting:
    """Stands for the reader of an engine whose servers count writes."""

    def write_states(self, url, *, secrets, is_settled):
        assert secrets == {}
        names = {"x://source": [T, U], "x://destination": [T]}[url]
        return {name: WriteState(url, 1, is_settled) for name in names}

    def uncounted_sessions(self, url, *, secrets):
        return [url]

    def live_tables(self, url, request, *, secrets):
        assert request.tolerant
        request.advance(1, 1)
        return LiveTables({U: RowsDigest(request.workers, 255)})


def test_both_sides_are_read_and_what_could_not_be_is_said():
    def side(digest, reason):
        def read(request):
            assert request.tolerant
            request.advance(request.workers, 0)
            digests = {name: RowsDigest(1, digest) for name in (T, U) if name not in request.without}
            return LiveTables(digests, {T: reason} if reason else {})

        return read

    rows = []
    at_source, at_destination, findings = read_digests(
        side(1, ""), side(2, "denied"), workers=3, without=[T], advance=lambda count, _: rows.append(count)
    )
    assert (at_source, at_destination, rows) == ({U: RowsDigest(1, 1)}, {U: RowsDigest(1, 2)}, [3, 3])
    assert [(one.key, one.what) for one in findings] == [
        ("public.t", "could not be read at the destination: denied")
    ]


@pytest.mark.parametrize("ends_by", ["an error", "a signal"])
def test_an_error_of_one_side_and_a_signal_end_the_reading_of_the_other(ends_by):
    cancellation = CancellationToken()

    def fail(_):
        if ends_by == "a signal":
            cancellation.cancel()
        raise UnreachableError("the network is cut")

    def read_for_long(request):
        for _ in range(20_000):
            time.sleep(0.01)
            request.advance(1, 1)

    begun = time.monotonic()
    with pytest.raises(UnreachableError, match="cut"):
        read_digests(read_for_long, fail, workers=1, cancellation=cancellation)
    with pytest.raises(Cancelled) if ends_by == "a signal" else nullcontext():
        cancellation.check()
    if ends_by == "a signal":
        with pytest.raises(Cancelled):
            read_digests(read_for_long, read_for_long, workers=1, cancellation=cancellation)
    assert time.monotonic() - begun < 60


def test_each_difference_is_named():
    at_source = {
        T: RowsDigest(1, 1),
        U: RowsDigest(2, 1),
        ("", "a"): RowsDigest(1, 1),
        ("", "v"): RowsDigest(1, 1),
        ("", "w"): RowsDigest(),
    }
    at_destination = {
        T: RowsDigest(1, 2),
        U: RowsDigest(1, 1),
        ("", "a"): RowsDigest(2, 1),
        ("", "w"): RowsDigest(),
        ("", "x"): RowsDigest(),
    }
    named = [(one.key, one.what, one.expected, one.found) for one in differences(at_source, at_destination)]
    assert named == [
        ("a", "has other rows", "1", "2"),
        ("u", "has other rows", "2", "1"),
        ("v", "is not at the destination", "", ""),
        ("x", "is not at the source", "", ""),
        ("public.t", "has other values", f"{1:032x}", f"{2:032x}"),
    ]
    assert differences(at_source, at_source) == []


def test_a_record_has_rows_and_hex_digits_by_name():
    assert as_recorded({T: RowsDigest(2, 255)}) == {"public.t": (2, f"{255:032x}")}


def test_what_servers_count_is_asked_of_both(monkeypatch):
    monkeypatch.setattr(table_digests, "live_reader", lambda _: Counting())
    source, destination = Endpoint("x://source"), Endpoint("x://destination")
    for is_settled in (True, False):  # the source is in use
        assert read_states(source, destination, is_settled=is_settled) == {
            T: (WriteState("x://source", 1, False), WriteState("x://destination", 1, is_settled))
        }
    assert read_states(source, destination) == read_states(source, destination, is_settled=False)
    assert uncounted_sessions(source) == ["x://source"]
    assert recorded_digests(source, workers=4) == {"u": (4, f"{255:032x}")}


def test_servers_that_count_nothing_say_nothing(monkeypatch):
    monkeypatch.setattr(table_digests, "live_reader", lambda _: SimpleNamespace())
    source, destination = Endpoint("x://source"), Endpoint("x://destination")
    assert (read_states(source, destination), uncounted_sessions(source)) == ({}, ())


def test_a_reader_is_that_of_the_engine():
    assert type(live_reader(Endpoint("sqlite:///a"))).__module__.startswith("exporters.sqlite.")

"""``meta/bundle.json``: which bundle this is, how fast its sources were read, and what stayed on the servers."""

from __future__ import annotations

import json

import pytest

from exporters.discovery import NotTaken
from exporters.structs import as_dict
from migrate.bundle import bundle_json, layout, left_behind
from migrate.bundle.bundle_json import (
    MOST_PACE_STEPS,
    CaseInfo,
    LeftOutSource,
    Pace,
    decode,
    decode_pace,
    pace_of,
)
from migrate.bundle.left_behind import LeftBehind, ServerRest
from migrate.errors import DamageError, UsageError
from migrate.storage.local.store import LocalStore

LEFT = LeftBehind(
    [ServerRest("toy://a", ["x", "y"]), ServerRest("toy://b", [], "no rights")],
    [("toy://a/logs", "not needed")],
    [NotTaken("queue", "jobs", None, "eu", "drain it"), NotTaken("disk", "d", 5, "", "copy it")],
)
WHOLE = {
    "format": "moveout-bundle",
    "version": 1,
    "id": "1",
    "created": "2026-01-01T00:00:00Z",
    "sealed": "2026-01-02T00:00:00Z",
    "software": "moveout",
    "complete": True,
    "continues": ["0"],
    "sources": [{"name": "app", "url": "toy://a/app", "kind": "toy", "complete": False, "identity": "a 1"}],
    "pace": {"start": "2026-01-01T00:00:00Z", "step_seconds": 2, "size_bytes": [1, 0, 3]},
    "left_behind": LEFT.as_json(),
    "left_out": [{"name": "old", "url": "toy://a/old"}],
    "case": {"name": "Plaza", "deadline": ""},
}


def encoded(**changes: object) -> bytes:
    return json.dumps(WHOLE | changes).encode()


def test_everything_is_read_and_written():
    info = decode(encoded())
    assert (info.id, info.complete, list(info.continues)) == ("1", True, ["0"])
    assert info.source("app") == info.sources[0]
    assert (info.sources[0].complete, info.sources[0].identity) == (False, "a 1")
    assert (info.left_behind, info.left_out, info.case) == (
        LEFT,
        [LeftOutSource("old", "toy://a/old")],
        CaseInfo("Plaza", ""),
    )
    assert info.pace is not None
    assert as_dict(info.pace) == WHOLE["pace"]
    assert info.pace.end == "2026-01-01T00:00:06Z"
    with pytest.raises(UsageError, match="no source 'shop'"):
        info.source("shop")
    assert json.loads(bundle_json.encode(info)) == WHOLE
    assert decode(encoded(left_behind=None, case=None, pace=None)).left_behind is None


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "bag"},
        {"sources": 3},
        {"sources": [{"name": "app"}]},
        {"sources": [{"name": "../x", "url": "", "kind": "", "complete": True}]},
        {"left_out": [{}]},
        {"left_behind": {}},
        {"case": {"name": "Plaza"}},
        {"complete": 1},
        {"sources": [WHOLE["sources"][0] | {"complete": 1}]},
    ],
)
def test_a_malformed_identity_is_damage(changes):
    with pytest.raises(DamageError, match=layout.BUNDLE_META):
        decode(encoded(**changes))


def test_a_bundle_of_a_later_format_is_refused():
    with pytest.raises(UsageError, match="it has version 2"):
        decode(encoded(version=2))


def test_a_location_without_tag_manifest_is_not_sealed_and_damage_names_the_location(tmp_path):
    store = LocalStore(tmp_path)
    store.put(layout.BUNDLE_META, encoded())
    assert bundle_json.read_sealed(store) is None
    store.put(layout.TAG_MANIFEST, b"")
    sealed = bundle_json.read_sealed(store)
    assert sealed is not None
    assert sealed.id == "1"
    store.put(layout.BUNDLE_META, b"{")
    with pytest.raises(DamageError, match=store.location):
        bundle_json.read_sealed(store)
    store.delete(layout.BUNDLE_META)
    with pytest.raises(DamageError, match=layout.BUNDLE_META):
        bundle_json.read_sealed(store)


def test_the_pace_sums_up_what_was_read_in_each_step():
    start = "2026-01-01T00:00:0"
    assert pace_of([]) is None
    assert pace_of([("yesterday", 1)]) is None
    assert pace_of([(f"{start}5Z", 7)]) == Pace(f"{start}5Z", 1, [7])
    assert pace_of([(f"{start}3Z", 2), (f"{start}1Z", 1), (f"{start}3Z", 5)]) == Pace(
        f"{start}1Z", 1, [1, 0, 7]
    )
    long = pace_of([("2026-01-01T00:00:00Z", 1), ("2026-01-01T00:01:59Z", 2), ("2026-01-01T00:02:00Z", 4)])
    assert long is not None
    assert (long.step_seconds, len(long.size_bytes), sum(long.size_bytes)) == (2, 61, 7)
    assert (long.size_bytes[0], long.size_bytes[59:]) == (1, [2, 4])
    whole = pace_of([("2026-01-01T00:00:00Z", 1), ("2026-01-01T00:01:59Z", 2)])
    assert whole is not None
    assert (whole.step_seconds, len(whole.size_bytes)) == (1, MOST_PACE_STEPS)
    assert decode_pace(as_dict(whole)) == whole


@pytest.mark.parametrize(
    "change",
    [
        {"start": "yesterday"},
        {"step_seconds": 0},
        {"step_seconds": 10**30},
        {"size_bytes": [1] * (MOST_PACE_STEPS + 1)},
        {"size_bytes": [-1]},
        {"size_bytes": [2**63]},
        {"size_bytes": [2**63 + 1]},
        {"size_bytes": None},
        {"size_bytes": ["x"]},
    ],
)
def test_a_pace_that_makes_no_sense_is_none(change):
    pace = {"start": "2026-01-01T00:00:00Z", "step_seconds": 1, "size_bytes": [0, 2**63 - 1]}
    assert decode_pace(pace) is not None
    assert decode_pace(pace | change) is None


def test_what_stays_is_said_in_a_sentence_for_each_server():
    assert list(LEFT.sentences()) == [
        "Also on toy://a, not taken: x, y.",
        "What else is on toy://b could not be listed: no rights",
    ]
    assert list(LEFT.sentences({"no rights"}))[1].endswith("could not be listed, for the same reason.")
    many = LeftBehind([ServerRest("toy://a", [str(number) for number in range(15)])])
    assert next(many.sentences()).endswith(" 10, 11 and 3 more.")
    exactly = LeftBehind([ServerRest("toy://a", [str(number) for number in range(12)])])
    assert next(exactly.sentences()).endswith(" 10, 11.")
    assert left_behind.decode(LEFT.as_json()) == LEFT

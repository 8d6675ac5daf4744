"""What a cutover prints of what it compared, and of what it took back."""

import pytest
from msgspec.structs import replace

from migrate.bundle.findings import Finding
from migrate.changes.remainder import Carried
from migrate.cli.common.terminal import Console
from migrate.cli.cutover import Switched, TakenBack
from migrate.follow.cutover_record import CutoverRecord, ProvenBucket, ProvenSource
from tests.cli.conftest import call

APP = ProvenSource(
    "app",
    "0/17",
    Carried({"sequences": 1200, "roles": 0}, ["a note"], ["view v"]),
    [],
    {"public.s": [5, "f0"], "public.t": [2, "0f"]},
    {"drain": 1.0, "compare whole tables": 2.0},
    ["public.m"],
    ["public.s", "public.t"],
    {"public.s": 1, "public.t": 2},
    {**{f"public.{number}": "it was emptied" for number in range(6)}, "public.x": "it has no key"},
)
PLAIN = ProvenSource(
    "shop", "9", Carried(), [], {"t": [3, "f"]}, {"drain": 1.0}, read_whole={"t": "it was emptied"}
)
MEDIA = ProvenBucket("media", 3, 42, "", 2.0)
RECORD = CutoverRecord("before", "2026-11-28T00:00:09Z", 9.0, [APP, PLAIN], [MEDIA])
DIFFERS = Finding("public.t", "has other rows", "2", "3")
SWITCHED = """
app  2 tables with 7 rows equal on both sides, up to 0/17
  compared before the hold: 2 tables; under it the rows that were written to since: 3 rows
  read whole under the hold: public.0, public.1, public.2, public.3, public.4, …: it was emptied
  read whole under the hold: public.x: it has no key
  carried outside of the log: 1,200 sequences
  drain 1.0 s, compare whole tables 2.0 s
  ! public.m is MISSING at the new side: the restore left it out
  ! view v is MISSING at the new side
  ! a note
shop  1 table with 3 rows equal on both sides, up to 9
  read whole under the hold: t: it was emptied
  drain 1.0 s
media  3 objects, 42 B, equal on both sides
  sync and compare 2.0 s
! no key
Switched at 2026-11-28T00:00:09Z: nothing could be written for 9.0 s
→ let the application use the new databases; moveout cutover --undo goes back to the old ones
"""
NOT_SWITCHED = """
app  1 table with 5 rows equal on both sides, up to 0/17
  drain 1.0 s
1 finding
  public.t: has other rows: expected 2, found 3
media  ! b lacks 2 objects
NOT SWITCHED: both sides differ; the old side is in use as before
→ moveout resync reads a table again, where its log is followed; then give moveout follow again
→ where delta passes are taken, moveout follow --overwrite replaces what others have written at the new side
"""
TAKEN_BACK = """
  done: ALTER DATABASE app
app: written at the new side since 2026-11-28T00:00:09Z:
1 finding
  public.t: has other rows: expected 2, found 3
shop: nothing was written at the new side since 2026-11-28T00:00:09Z
! media is another matter
The old side may be written to again
→ the old side lacks what was written at the new one: bring it over before it is used
"""


def printed(result, capsys) -> str:
    result.draw(Console())
    return "\n" + capsys.readouterr().out


def test_a_switch_says_what_was_compared_how_and_for_how_long(capsys):
    switched = Switched(RECORD, "undo.json", ["no key"])
    assert printed(switched, capsys) == SWITCHED
    json = switched.as_json()
    assert (json["switched"], json["undo"], json["notes"], json["downtime_seconds"]) == (
        *(True, "undo.json", ["no key"], 9.0),
    )
    assert Switched(RECORD, "").as_json()["undo"] is None
    before = printed(Switched(RECORD, "undo.json", is_now=False), capsys)
    assert "Nothing was done now: this was switched before, at 2026-11-28T00:00:09Z" in before


def test_what_differs_is_named_where_nothing_was_switched(capsys):
    source = replace(APP, differences=[DIFFERS], seconds={"drain": 1.0}, missing=(), carried=Carried())
    source = replace(source, compared_early=(), read_whole={})
    bucket = replace(MEDIA, problem="b lacks 2 objects")
    refused = Switched(replace(RECORD, sources=[source], buckets=[bucket]), "")
    assert printed(refused, capsys) == NOT_SWITCHED
    assert refused.as_json()["switched"] is False


@pytest.mark.parametrize(
    ("changes", "problem", "code"),
    [
        ({}, "", 0),
        ({"missing": ["t"]}, "", 3),
        ({"carried": Carried(missing=["view v"])}, "", 3),
        ({"differences": [DIFFERS], "missing": ["t"]}, "", 6),
        ({}, "lacks 2 objects", 6),
    ],
)
def test_the_exit_code_says_whether_it_was_switched_and_whether_something_is_missing(changes, problem, code):
    sources, buckets = [replace(PLAIN, **changes), PLAIN], [MEDIA, replace(MEDIA, problem=problem)]
    switched = Switched(replace(RECORD, sources=sources, buckets=buckets), "")
    assert (switched.exit_code, switched.is_switched) == (code, code != 6)


def test_what_the_new_side_has_since_is_named(capsys):
    written = {"app": [DIFFERS], "shop": []}
    back = TakenBack(RECORD.switched_at, written, ["ALTER DATABASE app"], ["media is another matter"])
    assert printed(back, capsys) == TAKEN_BACK
    json = back.as_json()
    assert (json["switched_at"], json["undone"]) == (RECORD.switched_at, ["ALTER DATABASE app"])
    assert [finding["key"] for finding in json["written_since"]["app"]] == ["public.t"]
    assert json["written_since"]["shop"] == []


def test_a_cutover_without_a_case_file_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = call("cutover")
    assert (ended.code, "no case file is named" in ended.err) == (2, True), ended

"""What the command of the cutover does and prints, at two files of SQLite."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from migrate.bundle.findings import Finding
from migrate.bundle.lease import Lease
from migrate.case.model import Endpoint
from migrate.changes.apply import Mark
from migrate.changes.delta_record import DeltaRecord, read_delta, write_delta
from migrate.changes.remainder import Carried
from migrate.cli.common.session import Session
from migrate.cli.common.terminal import Console
from migrate.cli.cutover import Switched, TakenBack
from migrate.cli.moves.cutover_buckets import CutoverBuckets
from migrate.custody.log import custody_log
from migrate.custody.source_holds import source_hold
from migrate.errors import BusyError, UnreachableError, UsageError
from migrate.follow.all_cutovers import AllCutovers
from migrate.follow.cutover_record import RECORD, CutoverRecord, ProvenBucket, ProvenSource, write_record
from migrate.follow.delta import DeltaCutover, DeltaSource
from migrate.follow.followed import FollowedSource
from migrate.follow.handover import cutover_lease
from migrate.follow.held_sources import HeldSources
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.cli.conftest import call
from tests.exporters.sqlite import databases as sqlite
from tests.follow.move_case import write_move_case

CUTOVER = ("cutover", "-c", "moveout.toml")
HOLD = (*CUTOVER, "--hold", "--yes")


@pytest.fixture
def move(tmp_path, monkeypatch):
    """The case of a file that delta passes keep up; returns how to run a statement at a side."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("migrate.follow.all_cutovers._QUIET_SECONDS", 0.0)
    write_move_case(
        tmp_path, *(sqlite.url_of(tmp_path / f"{side}.db") for side in ("old", "new")), follow=False
    )

    def run(side: str, script: str) -> None:
        with closing(sqlite3.connect(tmp_path / f"{side}.db")) as connection:
            connection.executescript(script)

    for side in ("old", "new"):
        run(side, "CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE TABLE u (id integer PRIMARY KEY)")
    run("old", "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    write_delta(open_location("bundle"), DeltaRecord("app", "no log"))
    return run


def mode(side: str) -> str:
    return f"{Path(f'{side}.db').stat().st_mode & 0o777:o}"


def shown(*words: str) -> str:
    """What a command prints, on one line."""
    ended = call(*words)
    return " ".join((ended.out + ended.err).split())


@pytest.mark.usefixtures("move")
def test_a_switch_is_recorded_once_and_says_what_was_compared():
    switched = call(*CUTOVER)
    assert switched.code == 0, switched
    text = " ".join(switched.out.split())
    record = json.loads(Path("bundle", RECORD).read_text())
    end = record["sources"][0]["end"]
    assert f"app 2 tables with 2 rows equal on both sides, up to {end} " in text
    for stage in ("last delta pass", "carry over what tables do not hold", "compare"):
        assert f"{stage} " in text
    assert "! only rows were carried since the snapshot" in text
    assert "nothing was written for " in text
    assert "! nothing holds the old databases: " in text
    assert "moveout cutover -c moveout.toml --undo goes back to the old ones" in text
    passes = read_delta(open_location("bundle"), "app").passes
    again = call(*CUTOVER, "--json").json
    assert (again["result"]["switched_at"], again["result"]["undo"]) == (record["switched_at"], None)
    assert again["result"]["switched"] is True
    held = call(*CUTOVER, "--hold", "--yes")
    assert (held.code, "--hold has held nothing now; moveout hold source" in held.out) == (0, True), held
    assert "nothing holds the old databases" not in held.out, "it is not known after a move to another folder"
    assert read_delta(open_location("bundle"), "app").passes == passes, (
        "the second command has compared nothing"
    )


def test_what_is_held_is_released_by_undo_which_names_what_was_written_since(move):
    held = call(*HOLD, "--json")
    assert (held.code, held.json["result"]["undo"]) == (0, "moveout-cutover.json"), held
    assert (mode("old"), "app: " in held.err) == ("444", True)
    assert call(*CUTOVER, "--json").json["result"]["undo"] == "moveout-cutover.json"
    move("new", "INSERT INTO u VALUES (7)")
    ended = call(*CUTOVER, "--undo", "--json")
    undone = ended.json["result"]
    assert ended.code == 3, "the old side lacks the row"
    assert (undone["switched_at"], len(undone["undone"])) == (held.json["result"]["switched_at"], 1)
    (table,) = undone["written_since"]["app"]
    assert (table["key"], table["expected"], table["found"]) == ("main.u", "0", "1")
    assert (mode("old"), Path("moveout-cutover.json").exists()) == ("644", False)
    assert not Path("bundle", RECORD).exists()
    nothing = call(*CUTOVER, "--undo")
    assert (nothing.code, "nothing was switched, and nothing is held" in nothing.err) == (2, True)


@pytest.mark.usefixtures("move")
def test_an_old_database_that_is_dead_does_not_keep_others_from_going_back(tmp_path, monkeypatch):
    """What runs by itself at their new sides stops, too."""
    for side in ("old", "new"):
        shutil.copy(f"{side}.db", f"{side}_2.db")
    more = "".join(
        f'[[{kind}]]\n{name} = "{value}"\nurl = "{sqlite.url_of(tmp_path / file)}"\n'
        for kind, name, value, file in (
            ("source", "name", "two", "old_2.db"),
            ("destination", "source", "two", "new_2.db"),
        )
    )
    Path("moveout.toml").write_text(Path("moveout.toml").read_text() + more)
    write_delta(open_location("bundle"), DeltaRecord("two", "no log"))
    assert call(*HOLD).code == 0
    open_hold, stopped = source_hold.open_hold, []

    def open_or_fail(endpoint, request):
        if endpoint.url.endswith("old.db"):
            raise UnreachableError("old.db is dead")
        return open_hold(endpoint, request)

    with monkeypatch.context() as patch:
        patch.setattr(source_hold, "open_hold", open_or_fail)
        patch.setattr(DeltaSource, "deactivate", lambda source: stopped.append(source.name))
        undone = call(*CUTOVER, "--undo")
    assert (undone.code, stopped, mode("old"), mode("old_2")) == (5, ["two"], "444", "644"), undone
    assert "! app is STILL HELD: old.db is dead" in undone.out
    assert "two: nothing was written at the new side since" in undone.out
    assert Path("bundle", RECORD).exists()
    assert shown(*CUTOVER, "--undo").endswith("The old side may be written to again")
    assert (mode("old"), Path("bundle", RECORD).exists()) == ("644", False)


@pytest.mark.usefixtures("move")
def test_undo_says_that_nothing_was_written_and_releases_what_a_dead_cutover_held():
    assert call(*HOLD, "--undo-file", "undo.json").code == 0
    text = shown(*CUTOVER, "--undo", "--undo-file", "undo.json")
    assert "done: " in text
    assert "app: nothing was written at the new side since " in text
    assert text.endswith("The old side may be written to again")
    assert call(*HOLD).code == 0
    Path("bundle", RECORD).unlink()  # as if it had died before the switch
    undone = call(*CUTOVER, "--undo", "--json").json["result"]
    assert (undone["switched_at"], undone["written_since"], mode("old")) == ("", {}, "644")


@pytest.mark.usefixtures("move")
def test_what_somebody_else_has_changed_since_is_left_to_them():
    assert call(*HOLD).code == 0
    Path("old.db").chmod(0o600)
    undone = call(*CUTOVER, "--undo")
    assert (undone.code, "was changed since by somebody else" in undone.err, mode("old")) == (2, True, "600")
    assert Path("bundle", RECORD).exists()


@pytest.mark.usefixtures("move")
def test_buckets_that_were_switched_are_named_by_undo():
    store = open_location("bundle")
    with cutover_lease(store, Silent()) as lease:
        for names in (("media",), ("media", "logs"), ()):
            buckets = [ProvenBucket(name, 3, 42, "", 0.5) for name in names]
            write_record(store, CutoverRecord("then", "now", 9.0, [], buckets), lease)
            text = shown(*CUTOVER, "--undo")
            step = "moveout sync -c moveout.toml --dry-run names it"
            words = f"! what the new side of {', '.join(names)} has since: {step}"
            assert (words in text) is bool(names)
            assert "app: nothing was written at the new side since now" in text


@pytest.mark.usefixtures("move")
def test_without_a_yes_nothing_is_held():
    refused = call(*CUTOVER, "--hold", "--no-input")
    assert (refused.code, mode("old"), Path("moveout-cutover.json").exists()) == (2, "644", False)
    assert "  app: " in refused.err
    assert not Path("bundle", RECORD).exists()


@pytest.mark.parametrize("case", ["", '[case]\nname = "bank"\n'])
def test_a_case_file_with_a_location_is_needed(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    Path("moveout.toml").write_text(case)
    ended = call("cutover", *(("-c", "moveout.toml") if case else ()))
    assert (ended.code, "no case file is named" in ended.err) == (2, True), ended


def test_where_both_sides_differ_nothing_is_switched_and_the_old_side_is_released(move):
    move("new", "DROP TABLE t")
    differs = call(*HOLD, "--json")
    result = differs.json["result"]
    assert (differs.code, result["switched"], result["undo"]) == (6, False, None), differs
    assert result["sources"][0]["differences"][0]["what"] == "is not at the destination"
    assert (mode("old"), Path("bundle", RECORD).exists()) == ("644", False)
    text = shown(*CUTOVER)
    assert "app 1 table with 0 rows equal on both sides" in text
    assert "NOT SWITCHED: both sides differ; the old side is in use as before" in text
    assert "moveout resync reads a table again" in text
    assert "Switched at" not in text


@pytest.mark.usefixtures("move")
def test_what_was_not_restored_is_not_switched():
    """Exit code 3 would mean that the switch was made."""
    Path("new.db").unlink()
    for words in (CUTOVER, HOLD, (*CUTOVER, "--dry-run")):
        ended = call(*words)
        assert (ended.code, "app was not restored yet" in ended.err) == (6, True), ended
    assert mode("old") == "644"


@pytest.mark.usefixtures("move")
@pytest.mark.parametrize("hold", [True, False])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(hold):
    text = shown(*CUTOVER, "--dry-run", *(("--hold",) if hold else ()))
    assert "would compare app: sqlite://" in text
    assert ("would hold app: " in text) is hold
    assert "would take app over" not in text
    assert (mode("old"), Path("bundle", RECORD).exists()) == ("644", False)


@pytest.mark.usefixtures("move")
@pytest.mark.parametrize("is_restored", [True, False])
def test_a_dry_run_says_what_the_new_side_would_lack(monkeypatch, is_restored):
    ends = [Endpoint(sqlite.url_of(Path(f"{side}.db").absolute())) for side in ("old", "new")]
    source = FollowedSource("app", *ends, 7, {}, "case")
    monkeypatch.setattr("migrate.cli.cutover._followed", lambda *_: (open_location("bundle"), [source]))
    monkeypatch.setattr(AllCutovers, "catch_up_unless_followed", lambda _: [False])
    monkeypatch.setattr(
        FollowedSource, "applied_mark", lambda _: Mark(7, skipped=("t", "u")) if is_restored else None
    )
    monkeypatch.setattr(FollowedSource, "definition_gaps", lambda _, skipped: (f"a view of {skipped[0]}",))
    text = shown(*CUTOVER, "--dry-run")
    lacks = [
        "would switch app without t, u, unless they are made at the new side before",
        "would switch app without a view of t, unless it is made at the new side before",
    ]
    assert [words in text for words in lacks] == [is_restored] * 2
    assert "would compare app: " in text
    monkeypatch.setattr(FollowedSource, "applied_mark", lambda _: Mark(7))
    monkeypatch.setattr(FollowedSource, "definition_gaps", lambda _, skipped: ())
    assert "would switch" not in shown(*CUTOVER, "--dry-run")


def fail_to(method: str, error: Exception):
    def fail(*_: object, **__: object) -> None:
        raise error

    return method, fail


@pytest.mark.usefixtures("move")
@pytest.mark.parametrize("failing", [DeltaCutover, CutoverBuckets])
def test_an_error_of_databases_or_buckets_ends_the_proof_of_the_others(monkeypatch, failing):
    def wait(proof: DeltaCutover | CutoverBuckets) -> None:
        cancellation = proof.session.cancellation if isinstance(proof, CutoverBuckets) else proof.cancellation
        assert cancellation.wait(60), "nobody has ended it"
        cancellation.check()

    for kind in (DeltaCutover, CutoverBuckets):
        prove = fail_to("", BusyError("it was written to"))[1] if kind is failing else wait
        monkeypatch.setattr(kind, "prove", prove)
    ended = call(*CUTOVER, "--json")
    assert (ended.code, ended.json["error"]["message"]) == (5, "it was written to"), ended


@pytest.mark.usefixtures("move")
@pytest.mark.parametrize("words", [CUTOVER, HOLD])
def test_both_sides_catch_up_before_the_hold_and_the_new_one_is_activated_after_the_proof(monkeypatch, words):
    steps: list[object] = []

    @contextmanager
    def waiting_for_silent(_: Session, *endpoints: Endpoint, is_limited: Callable[[], bool], may_end: bool):
        assert not may_end
        steps.append(is_limited)
        yield

    def note(kind: type, name: str) -> None:
        step = getattr(kind, name)
        monkeypatch.setattr(
            kind, name, lambda *each, **more: steps.append((name, steps[0]())) or step(*each, **more)
        )

    monkeypatch.setattr(Session, "waiting_for_silent", waiting_for_silent)
    for kind, name in (
        (AllCutovers, "take_over"),
        (AllCutovers, "compare_early"),
        (CutoverBuckets, "catch_up"),
        (AllCutovers, "catch_up"),
        (AllCutovers, "wait_until_quiet"),
        (HeldSources, "place"),
        (DeltaCutover, "prove"),
        (HeldSources, "require_still"),
        (DeltaSource, "activate"),
    ):
        note(kind, name)
    assert call(*words).code == 0
    before = [("take_over", False), ("compare_early", False), ("catch_up", False), ("catch_up", False)]
    if words == CUTOVER:
        rest = [("wait_until_quiet", False), ("prove", True), ("activate", True)]
    else:
        rest = [("place", True), ("prove", True), ("require_still", True), ("activate", True)]
    assert steps[1:] == before + rest


def test_a_hold_that_has_ended_during_the_proof_makes_no_switch(move, monkeypatch):
    prove = DeltaCutover.prove

    def prove_and_end_the_hold(cutover: DeltaCutover) -> ProvenSource:
        proven = prove(cutover)
        Path("old.db").chmod(0o644)
        return proven

    monkeypatch.setattr(DeltaCutover, "prove", prove_and_end_the_hold)
    ended = call(*HOLD, "--json")
    assert (ended.code, ended.json["error"]["switched"]) == (5, False), ended
    assert "the old side can still be written to" in ended.json["error"]["message"]
    assert not Path("bundle", RECORD).exists()


@pytest.mark.usefixtures("move")
def test_a_cutover_that_has_lost_its_lease_makes_no_switch(monkeypatch):
    monkeypatch.setattr(Lease, *fail_to("check", BusyError("another run has taken the location over")))
    ended = call(*HOLD, "--json")
    assert (ended.code, ended.json["error"]["switched"], mode("old")) == (5, False, "644"), ended
    assert not Path("bundle", RECORD).exists()


@pytest.mark.usefixtures("move")
def test_who_answers_no_changes_nothing(monkeypatch):
    monkeypatch.setattr(Session, "confirm", lambda _, question: False)
    refused = call(*CUTOVER, "--hold")
    assert (refused.code, "nothing was changed" in refused.err, mode("old")) == (2, True, "644"), refused
    monkeypatch.setattr(Session, "confirm", lambda _, question: True)
    assert (call(*CUTOVER, "--hold").code, mode("old")) == (0, "444")


@pytest.mark.usefixtures("move")
@pytest.mark.parametrize("is_released", [True, False])
def test_after_an_error_the_old_side_is_released_or_the_command_that_does_it_is_named(
    monkeypatch, is_released
):
    monkeypatch.setattr(DeltaCutover, *fail_to("prove", BusyError("it was written to")))
    if not is_released:
        monkeypatch.setattr(
            HeldSources, *fail_to("release", UsageError("it was changed since by somebody else"))
        )
    ended = call(*HOLD, "--json")
    assert (ended.code, ended.json["error"]["switched"]) == (5, False), ended
    undo = "moveout cutover -c moveout.toml --undo --undo-file moveout-cutover.json"
    named = f"the old databases are held; {undo} releases them"
    assert (named in ended.err) is not is_released
    assert ended.json["error"].get("undo") == (None if is_released else "moveout-cutover.json")
    assert mode("old") == ("644" if is_released else "444")


@pytest.mark.usefixtures("move")
def test_where_the_location_does_not_answer_nobody_knows_whether_the_switch_was_made(monkeypatch):
    """So the old side stays held."""
    monkeypatch.setattr("migrate.cli.cutover.write_record", fail_to("", UnreachableError("away"))[1])
    ended = call(*HOLD, "--json")
    assert (ended.code, ended.json["error"]["switched"], mode("old")) == (5, None, "444"), ended
    assert "the old databases are held; moveout cutover -c moveout.toml --undo" in ended.err


@pytest.mark.usefixtures("move")
def test_after_the_switch_an_error_does_not_release_the_old_side(monkeypatch):
    monkeypatch.setattr("migrate.cli.cutover._write_custody_log", fail_to("", UnreachableError("away"))[1])
    ended = call(*HOLD, "--json")
    assert (ended.json["error"]["switched"], mode("old")) == (True, "444"), ended
    assert (
        "the switch was made; moveout cutover -c moveout.toml --undo --undo-file moveout-cutover.json"
        in ended.err
    )


@pytest.mark.usefixtures("move")
@pytest.mark.parametrize(("words", "compared"), [((), ["app"]), (("--compare-all", "--workers", "1"), [])])
def test_both_sides_are_compared_before_the_hold_unless_all_is_compared_under_it(
    monkeypatch, words, compared
):
    asked: list[str] = []
    monkeypatch.setattr(DeltaCutover, "compare_early", lambda cutover: asked.append(cutover.followed.name))
    assert call(*CUTOVER, *words).code == 0
    assert asked == compared


@pytest.mark.usefixtures("move")
def test_a_source_that_a_follow_is_at_work_on_is_taken_over(monkeypatch):
    taken: list[bool] = []
    monkeypatch.setattr(AllCutovers, "take_over", lambda _, *, is_held: taken.append(is_held))
    monkeypatch.setattr(AllCutovers, "catch_up_unless_followed", lambda _: [True])
    assert "would take app over from the moveout follow that is at work" in shown(*CUTOVER, "--dry-run")
    assert taken == []
    for _ in range(2):  # the first one dies under the hold, so to say
        assert call(*HOLD).code == 0
        Path("bundle", RECORD).unlink()
    assert taken == [False, True]


@pytest.mark.usefixtures("move")
def test_the_custody_log_has_the_switch_and_the_way_back_once(monkeypatch):
    key = ("--key", "key")
    assert call("keys", "init", "key").code == 0
    shutil.rmtree("bundle")
    assert call("export", "-c", "moveout.toml").code == 0
    write_delta(open_location("bundle"), DeltaRecord("app", "no log"))
    for _ in range(2):
        assert call(*CUTOVER, *key).code == 0
    with monkeypatch.context() as patch:
        patch.setattr("migrate.cli.cutover.remove_record", fail_to("", UnreachableError("away"))[1])
        assert call(*CUTOVER, "--undo", *key).code == 5
    assert call(*CUTOVER, "--undo", *key).code == 0
    events = [entry.what.event for entry in custody_log.read(open_location("bundle")).entries]
    assert [event for event in events if "switched" in event] == ["switched", "switched back"]


@pytest.mark.usefixtures("move")
def test_what_the_custody_log_could_not_take_is_said():
    """It belongs to a sealed bundle."""
    key = ("--key", "key")
    assert call("keys", "init", "key").code == 0
    (note,) = call(*CUTOVER, *key, "--json").json["result"]["notes"]
    assert note.startswith("not in the custody log: ")
    assert f"! {note}" in shown(*CUTOVER, "--undo", *key)


@pytest.fixture
def drawn(capsys):
    """Return the lines that a result prints."""

    def draw(result: Switched | TakenBack) -> list[str]:
        result.draw(Console())
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    return draw


SOURCE = ProvenSource(
    "app", "5/6", Carried(), [], {"t": [5, "aa"], "u": [2, "bb"]}, {"drain": 1.5, "compare": 90.0}
)
BUCKET = ProvenBucket("media", 3, 4200, "", 2.5)


def switched(*sources: ProvenSource, buckets: tuple[ProvenBucket, ...] = ()) -> Switched:
    return Switched(CutoverRecord("then", "now", 91.0, sources, buckets), "undo.json")


def test_what_was_switched_is_drawn(drawn):
    lines = drawn(switched(SOURCE, buckets=(BUCKET,)))
    assert lines == [
        "app 2 tables with 7 rows equal on both sides, up to 5/6",
        "drain 1.5 s, compare 1 min 30 s",
        "media 3 objects, 4.2 kB, equal on both sides",
        "sync and compare 2.5 s",
        "Switched at now: nothing could be written for 1 min 31 s",
        "→ let the application use the new databases; moveout cutover --undo goes back to the old ones",
    ]
    early = replace(
        SOURCE,
        carried=Carried({"sequences": 2, "tables": 0, "events": 1}, ["no definitions"], ["the view v"]),
        missing=["s"],
        compared_early=["t"],
        compared_by_key={"t": 3, "u": 1},
        read_whole={**dict.fromkeys("abcdef", "it was emptied"), "g": "no key"},
    )
    lines = drawn(switched(early))
    assert lines[1:-2] == [
        "compared before the hold: 1 table; under it the rows that were written to since: 4 rows",
        "read whole under the hold: a, b, c, d, e, …: it was emptied",
        "read whole under the hold: g: no key",
        "carried outside of the log: 2 sequences, 1 event",
        "drain 1.5 s, compare 1 min 30 s",
        "! s is MISSING at the new side: the restore left it out",
        "! the view v is MISSING at the new side",
        "! no definitions",
    ]
    five = drawn(switched(replace(SOURCE, read_whole=dict.fromkeys("abcde", "it was emptied"))))
    assert five[1] == "read whole under the hold: a, b, c, d, e: it was emptied"


def test_what_keeps_a_switch_from_being_made_is_drawn(drawn):
    differs = replace(SOURCE, differences=[Finding("u", "has other rows", "2", "1")])
    bucket = replace(BUCKET, problem="2 objects differ")
    lines = drawn(switched(differs, buckets=(bucket,)))
    assert lines[0] == "app 1 table with 5 rows equal on both sides, up to 5/6"
    assert any("u" in line and "has other rows" in line for line in lines)
    assert "media ! 2 objects differ" in lines
    assert not any("sync and compare" in line or "Switched" in line for line in lines)
    assert lines[-3].startswith("NOT SWITCHED")


@pytest.mark.parametrize(
    ("more", "bucket", "is_switched", "code"),
    [
        ({}, "", True, 0),
        ({"missing": ["s"]}, "", True, 3),
        ({"carried": Carried(missing=["the view v"])}, "", True, 3),
        ({"differences": [Finding("u", "has other rows", "2", "1")]}, "", False, 6),
        ({"differences": [Finding("u", "differs", "", "")], "missing": ["s"]}, "", False, 6),
        ({}, "2 objects differ", False, 6),
    ],
)
def test_the_exit_code_says_whether_the_switch_was_made(more, bucket, is_switched, code):
    made = switched(SOURCE, replace(SOURCE, **more), buckets=(BUCKET, replace(BUCKET, problem=bucket)))
    assert (made.is_switched, made.exit_code, made.as_json()["switched"]) == (is_switched, code, is_switched)


def test_what_was_taken_back_is_drawn(drawn):
    written = {"app": [Finding("u", "was written to since", "2", "3")], "shop": []}
    back = TakenBack("now", written, ["made writable"], ["look at the bucket"])
    lines = drawn(back)
    assert lines[0] == "done: made writable"
    assert "app: written at the new side since now:" in lines
    assert any("u" in line and "was written to since" in line for line in lines)
    assert lines[-4:-1] == [
        "shop: nothing was written at the new side since now",
        "! look at the bucket",
        "The old side may be written to again",
    ]
    assert lines[-1].startswith("→ the old side lacks")
    unwritten = replace(back, written={"shop": []}, notes=[])
    assert (unwritten.exit_code, replace(unwritten, written=written).exit_code) == (0, 3)
    assert drawn(unwritten)[-1] == "The old side may be written to again"

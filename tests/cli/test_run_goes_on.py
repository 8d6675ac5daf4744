"""A whole move does every stage for whatever is there, and its last words are true."""

import json
import os
import re
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from migrate.changes.delta_record import read_delta, write_delta
from migrate.storage.registry import open_location
from tests.cli.conftest import MOVEOUT, call, make_file
from tests.tools.clients import boto_client
from tests.tools.pages import parse

CASE = """
[case]
name = "night"
deadline = {deadline}
[bundle]
location = "bundle"
"""
MOVE = """
[[source]]
name = "{name}"
url = "sqlite://{folder}/{name}.db"
[[destination]]
source = "{name}"
url = "sqlite://{folder}/{new}/{name}.db"
"""


@pytest.fixture
def case(tmp_path):
    """Three files, of which one is missing, and one has a destination that is missing."""
    path = tmp_path / "moveout.toml"
    moves = [("one", "new"), ("two", "not-there"), ("three", "new")]
    text = CASE.format(deadline="2099-01-01T00:00:00Z")
    path.write_text(text + "".join(MOVE.format(name=n, folder=tmp_path, new=new) for n, new in moves))
    make_file(tmp_path / "one.db")
    make_file(tmp_path / "two.db")
    (tmp_path / "new").mkdir()
    return path


def test_a_bad_source_and_a_bad_destination_are_named_and_completed_by_the_same_command(case, tmp_path):
    first = call("run", "-c", case, "--json")
    assert first.code == 3, first.err
    rows = {row["source"]: row for row in first.json["result"]["summary"]}
    stages = ("exported", "verified", "restored", "compared")
    assert {name: [row[stage] for stage in stages] for name, row in rows.items()} == {
        "one": ["yes", "yes", "yes", "yes"],
        "two": ["yes", "yes", "no", "no"],
        "three": ["no", "no", "no", "no"],
    }
    assert "add --create" in rows["two"]["next_step"]
    out, verified, up, *rest = first.json["result"]["sentences"]
    assert out == "Out: 2 of 3 sources; not: three."
    assert verified == "Verified: 2 of 3 sources; not: three."
    assert up == "Up on the new host: 1 of 3 sources; not: two, three."
    assert any("The only bundle lies at" in sentence for sentence in rest)
    assert "not everything is out yet" in rest[-4]
    make_file(tmp_path / "four.db")
    text = case.read_text()
    case.write_text(text + MOVE.format(name="four", folder=tmp_path, new="new"))
    status = call("status", "-c", case)
    assert f"not in this bundle yet: four; moveout run -c {case} adds them" in " ".join(status.out.split())
    case.write_text(text)

    make_file(tmp_path / "three.db")
    second = call("run", "-c", case, "--create")
    assert second.code == 0, second.out + second.err
    assert "Out: all 3 sources.\nVerified: all 3 sources.\nUp on the new host: all 3 sources." in second.out
    assert "The deadline 2099-01-01 00:00 UTC was met, with " in second.out
    assert "to spare, if that is not on the old host." in " ".join(second.out.split())
    assert re.search(r"Everything was up and compared [\d,]+ days \d+ h before the deadline\.", second.out)
    again = call("run", "-c", case)
    assert "Everything was up before this run, and was compared again " in " ".join(again.out.split())


def test_what_a_source_has_written_since_it_was_read_comes_by_the_command_that_is_named(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # the hold keeps its undo file there
    case, old, new = tmp_path / "moveout.toml", tmp_path / "one.db", tmp_path / "new"
    new.mkdir()
    text = CASE.format(deadline="2099-01-01T00:00:00Z")
    case.write_text(text + MOVE.format(name="one", folder=tmp_path, new="new"))
    make_file(old)
    moved = call("run", "-c", case, "--json")
    *_, since, step, unless = moved.json["result"]["sentences"]
    assert unless == (
        "Do that before the new side is in use: a table that was written to there stops the follow."
    )
    assert (moved.code, since.startswith("What was written at the sources since 20")) == (0, True), since
    command = f"moveout follow -c {case} --delta --until-caught-up"
    assert step == f"→ stop what writes there, then bring that, too: {command}"
    with closing(sqlite3.connect(old)) as written, written:
        written.execute("INSERT INTO t VALUES (77)")
    exported = call("export", "-c", case)
    assert (exported.code, "have written since is not in it" in exported.out) == (0, True), exported.out
    assert call(*command.split()[1:]).code == 0
    with closing(sqlite3.connect(new / "one.db")) as brought:
        assert brought.execute("SELECT count(*) FROM t WHERE x = 77").fetchone() == (1,)
    store = open_location("bundle")
    last = read_delta(store, "one")
    write_delta(store, replace(last, at="2033-02-01T03:04:05.000+00:00"))
    *_, since, _, _ = call("run", "-c", case, "--json").json["result"]["sentences"]
    assert since.startswith("What was written at the sources since 2033-02-01 03:04 UTC may be missing")
    assert call("cutover", "-c", case, "--hold", "--yes").code == 0
    after = call("run", "-c", case)
    assert (after.code, "The switch was made at" in after.out, "--delta" in after.out) == (0, True, False), (
        after
    )


def test_what_an_earlier_run_has_read_may_lack_writes_since_that_run(case, tmp_path):
    """The sources that it finished are not read again, and the moment of the second run was named for them, too."""
    assert call("run", "-c", case, "--quiet").code == 3
    record = tmp_path / "bundle/_work/export.json"
    text = record.read_text()
    record.write_text(text.replace(json.loads(text)["created"], "2026-01-02T03:04:05Z"))
    make_file(tmp_path / "three.db")
    second = call("run", "-c", case, "--create", "--json")
    assert second.code == 0, second.err
    since = "What was written at the sources since 2026-01-02 03:04 UTC"
    sentences = second.json["result"]["sentences"]
    assert any(sentence.startswith(since) for sentence in sentences), sentences


def test_damage_costs_its_own_source(case, tmp_path):
    """The copy is not sealed then, and the bundle where it was made serves."""
    make_file(tmp_path / "three.db")
    (tmp_path / "not-there").mkdir()
    assert call("export", "-c", case, "--quiet").code == 0
    [part] = (tmp_path / "bundle/data/two/tables").rglob("*.parquet")
    part.write_bytes(b"x" * part.stat().st_size)
    case.write_text(case.read_text() + '[transfer]\nlocation = "copy"\n')
    ended = call("run", "-c", case, "--json")
    assert ended.code == 6, ended.err
    rows = {row["source"]: row for row in ended.json["result"]["summary"]}
    assert [rows[name]["restored"] for name in ("one", "two", "three")] == ["yes", "differs", "yes"]
    assert (rows["two"]["verified"], rows["one"]["verified"]) == ("damaged", "yes")
    assert "two" in ended.json["result"]["sentences"][1]
    case.write_text(case.read_text().replace('[transfer]\nlocation = "copy"\n', ""))
    again = call("run", "-c", case)
    assert again.code == 6
    assert re.search(r"The deadline .* is in .*; not everything is verified yet\.", again.out), again.out


def test_a_copy_that_cannot_be_sent_is_named_and_the_bundle_serves(case, tmp_path):
    make_file(tmp_path / "three.db")
    (tmp_path / "not-there").mkdir()
    (tmp_path / "blocked").write_text("a file where a directory should be")
    case.write_text(case.read_text() + '[transfer]\nlocation = "blocked/copy"\n')
    first = call("run", "-c", case, "--json")
    assert first.code == 3, first.err
    out, _, _, compared, *rest = first.json["result"]["sentences"]
    assert (out, compared) == ("Out: all 3 sources.", "Compared row by row: all 3 sources.")
    assert rest[0].startswith(f"The bundle could not be sent to {tmp_path}/blocked/copy: ")
    assert rest[1].startswith("→ ")
    assert "The only bundle that was verified lies at" in rest[2]
    assert rest[3].endswith("no copy of the bundle is verified yet.")

    (tmp_path / "blocked").unlink()
    assert call("run", "-c", case).code == 0
    (tmp_path / "blocked/copy/meta/bundle.json").write_text('{"x"')
    damaged = call("status", tmp_path / "blocked/copy")
    assert (damaged.code, f"{tmp_path}/blocked/copy/meta/bundle.json" in damaged.err) == (6, True), damaged
    assert call("run", "-c", case).code == 0, "what cannot be read of the copy is sent again"
    assert call("status", tmp_path / "blocked/copy").code == 0


def test_a_deadline_that_is_past_is_said_to_be_missed(case, tmp_path):
    make_file(tmp_path / "three.db")
    (tmp_path / "not-there").mkdir()
    case.write_text(case.read_text().replace("2099", "2020") + '[transfer]\nlocation = "copy"\n')
    first = " ".join(call("run", "-c", case).out.split())
    assert re.search(r"was missed by [^:]*: only then everything lay there\.", first)
    assert re.search(r"Everything was up and compared \S+ days \d+ h after the deadline", first)


def test_the_deadline_counts_until_the_last_file_was_at_the_new_location(case, tmp_path):
    """And not from the seal, also where an earlier run has sent it; the page says both."""
    make_file(tmp_path / "three.db")
    (tmp_path / "not-there").mkdir()
    assert call("export", "-c", case, "--quiet").code == 0
    time.sleep(1.1)
    between = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    text = case.read_text().replace("2099-01-01T00:00:00Z", between)
    case.write_text(text + '[transfer]\nlocation = "copy"\n')
    time.sleep(1)
    assert call("transfer", "-c", case, "--quiet").code == 0
    assert ": only then everything lay there." in " ".join(call("run", "-c", case).out.split())
    pairs = [f"{name}=sqlite://{tmp_path}/{name}.db" for name in ("one", "two", "three")]
    compared = call("verify", tmp_path / "copy", "--against", *pairs, "--json")
    (tmp_path / "compared.json").write_text(compared.out)
    page = tmp_path / "page.html"
    assert call("report", "-c", case, "--out", page, "--result", tmp_path / "compared.json").code == 0
    shown = " ".join(parse(page.read_bytes()).text.split())
    assert re.search(r"lay at its location [\d,]+ days \d+ h before it", shown)
    assert "written after the seal, and nothing vouches for it" in shown
    assert re.search(r"up and compared [\d,]+ days \d+ h before it", shown)


def test_where_nothing_can_be_exported_the_code_is_the_errors(case, tmp_path):
    (tmp_path / "one.db").unlink()
    (tmp_path / "two.db").unlink()
    ended = call("run", "-c", case)
    assert (ended.code, "Nothing is out." in ended.out) == (7, True), ended.out


def test_a_run_that_makes_what_is_missing_does_not_call_it_missing(minio, bucket, tmp_path):
    boto_client(minio.profile).put_object(Bucket=bucket, Key="k", Body=b"v")
    old, new = (f"s3://{name}?profile={minio.profile}" for name in (bucket, f"{bucket}-new"))
    move = f'[[source]]\nname = "m"\nurl = "{old}"\n[[destination]]\nsource = "m"\nurl = "{new}"\n'
    case = tmp_path / "moveout.toml"
    case.write_text(CASE.format(deadline="2099-01-01T00:00:00Z") + move)
    ended = call("run", "-c", case, "--create")
    assert (ended.code, "The restore makes it." in ended.out, "--create" in ended.out) == (0, True, False)


def test_a_server_of_which_nothing_could_be_listed_is_no_success(case, tmp_path):
    server = "postgresql://nobody@127.0.0.1:1"
    text = CASE.format(deadline="2099-01-01T00:00:00Z") + MOVE.format(name="one", folder=tmp_path, new="new")
    case.write_text(f'{text}[[server]]\nurl = "{server}"\n')
    examined = call("doctor", "-c", case, "--json")
    assert examined.code == 5
    finding = examined.json["result"]["examined"][1]["findings"][0]
    assert (finding["severity"], finding["consequence"]) == ("blocks", "Nothing of it leaves.")
    rows = call("doctor", "-c", case).out.splitlines()
    assert any(row.startswith("127.0.0.1:1 ") for row in rows), rows
    assert not any(", here 2099-01-01 00:00 UTC" in row for row in rows), rows
    moved = call("run", "-c", case, "--json")
    assert moved.code == 3, moved.err
    words = f"NOTHING of {server} leaves: it could not be listed"
    assert [words in sentence for sentence in moved.json["result"]["sentences"]].count(True) == 1
    assert call("run", "-c", case).code == 3
    planned = call("plan", "-c", case)
    assert (planned.code, f"not counted: {server}" in " ".join(planned.out.split())) == (3, True), planned.out
    assert words in " ".join(planned.out.split())
    assert "What else" not in planned.out
    status = call("status", "-c", case)
    assert (status.code, f"NOTHING of {server} is out" in status.out) == (3, True), status.out
    assert call("status", "-c", case, "--json").json["result"]["unlisted"] == [server]

    case.write_text(case.read_text().replace(server, "postgresql://other@127.0.0.1:1"))
    moved = call("run", "-c", case, "--json")
    assert any("NOTHING of postgresql://other@127" in s for s in moved.json["result"]["sentences"]), moved
    case.write_text(case.read_text().replace("postgresql://other@127.0.0.1:1", server))

    corrected = call("run", "-c", case_without(case, server))
    assert (corrected.code, server in corrected.out) == (0, False), corrected.out

    case.write_text(f'{text}[[left_out]]\nurl = "{server}/*"\nreason = "it is empty"\n')
    assert server not in call("doctor", "-c", case).out
    assert call("run", "-c", case).code == 0
    assert call("status", "-c", case).code == 0


def test_a_server_that_answers_after_all_leaves_in_the_same_bundle(case, tmp_path):
    """What it holds comes into the bundle, also where a run asks it before it is discovered."""
    later = tmp_path / "later"
    case.write_text(
        f"{CASE.format(deadline='2099-01-01T00:00:00Z')}{MOVE.format(name='one', folder=tmp_path, new='new')}"
        f'[[server]]\nurl = "sqlite://{later}"\n'
    )
    assert call("run", "-c", case).code == 3
    assert "INCOMPLETE" in call("status", "-c", case).out
    call("export", "-c", case, f"one=sqlite://{tmp_path}/one.db", "--to", tmp_path / "own")
    assert "a sealed bundle, complete" in call("status", tmp_path / "own").out
    later.mkdir()
    make_file(later / "two.db")
    asked = call("run", "-c", case)
    words = " ".join(asked.out.split())
    assert (asked.code, "it answers now, and nothing of it is in the case file" in words) == (3, True), words
    assert f"moveout discover -c {case} adds what it holds" in words
    assert call("discover", "-c", case).code == 0
    case.write_text(case.read_text().replace('to = ""', f'to = "sqlite://{tmp_path}/new"'))
    last = call("run", "-c", case)
    assert (last.code, "Up on the new host: both sources." in last.out) == (0, True), last.out
    assert (tmp_path / "new/two.db").exists()
    status = call("status", "-c", case)
    assert (status.code, "a sealed bundle, complete" in status.out) == (0, True), status.out


def case_without(case, server):
    """Return the case with the address of a server corrected."""
    path = case.with_name("corrected.toml")
    path.write_text(case.read_text().replace(f'url = "{server}"', f'url = "{case.parent / "new"}"'))
    return path


@pytest.mark.parametrize("comes_up", [True, pytest.param(False, marks=pytest.mark.torture)])
def test_a_source_that_comes_into_the_case_after_a_complete_seal_is_named_and_stops_no_other(
    case, tmp_path, comes_up
):
    """It is not taken for exported, and what is up stays up."""
    folder = tmp_path if comes_up else tmp_path / "later"
    folder.mkdir(exist_ok=True)
    one = MOVE.format(name="one", folder=tmp_path, new="new")
    three = MOVE.format(name="three", folder=folder, new="new")
    if not comes_up:
        one, three = (move.partition("[[destination]]")[0] for move in (one, three))
        three += f'[[destination]]\nfrom = "sqlite://{folder}"\nto = ""\n'
    head = CASE.format(deadline="2099-01-01T00:00:00Z")
    case.write_text(head + one)
    assert call("run", "-c", case, "--json").code == 0
    make_file(folder / "three.db")
    case.write_text(head + one + three)
    again = call("run", "-c", case, "--json")
    assert again.code == 3, again.err
    rows = {row["source"]: row for row in again.json["result"]["summary"]}
    stages = ("exported", "verified", "restored", "compared")
    up = "yes" if comes_up else "-"
    assert {name: [row[stage] for stage in stages] for name, row in rows.items()} == {
        "one": ["yes", "yes", up, up],
        "three": ["no", "-", "-", "-"],
    }
    assert "was sealed complete without it" in rows["three"]["problem"]
    paste = rows["three"]["next_step"].partition(": ")[2]
    assert ("moveout restore" in paste) is comes_up
    assert again.json["result"]["sentences"][0] == "Out: 1 of 2 sources; not: three."
    assert not any("was met" in sentence for sentence in again.json["result"]["sentences"])

    status = call("status", "-c", case)
    assert status.code == 3
    words = " ".join(status.out.split())
    assert "in the case, and not in this bundle: three. It was sealed complete before" in words
    assert f"moveout run -c {case} says" in words

    path = f"{MOVEOUT.parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", paste], check=True, env={**os.environ, "PATH": path}, capture_output=True)
    assert call("verify", f"{tmp_path}/bundle-three").code == 0
    assert (tmp_path / "new/three.db").exists() is comes_up
    last = call("run", "-c", case)
    assert (last.code, "in a bundle of its own at" in last.out) == (0, True), last
    assert call("status", "-c", case).code == 0

    case.write_text(head + three)
    none = call("run", "-c", case)
    assert none.code == 2
    assert "it has: one" in none.err


def test_a_source_that_left_the_case_is_dropped_by_the_command_that_is_named(case, tmp_path):
    head, (one, three) = (
        CASE.format(deadline="2099-01-01T00:00:00Z"),
        (MOVE.format(name=name, folder=tmp_path, new="new") for name in ("one", "three")),
    )
    case.write_text(head + one + three)
    assert call("run", "-c", case).code == 3  # there is no three.db
    case.write_text(head + one)
    refused = call("run", "-c", case)
    command = f"moveout export -c {case} --drop three"
    assert (refused.code, f"; {command} leaves out on purpose" in refused.err) == (2, True), refused
    assert call(*command.split()[1:]).code == 0
    assert call("run", "-c", case).code == 0


def test_what_a_restore_has_filled_is_in_the_way_of_nobody(case, tmp_path):
    """After the move, an examination and a dry run do not say that the restore would refuse."""
    head = CASE.format(deadline="2099-01-01T00:00:00Z")
    case.write_text(head + MOVE.format(name="one", folder=tmp_path, new="new"))
    assert call("run", "-c", case).code == 0
    examined = call("doctor", "-c", case, "--json")
    assert examined.code == 0, examined.out
    (there,) = [each for each in examined.json["result"]["examined"] if each["kind"] == "destination"]
    contents = [finding["severity"] for finding in there["findings"] if finding["check"] == "contents"]
    assert contents == ["info"]
    assert call("restore", "-c", case, "--dry-run").code == 0
    assert "A restore refuses it" not in call("plan", "-c", case).out
    (tmp_path / "new/one.db").unlink()
    make_file(tmp_path / "new/other.db")
    case.write_text(case.read_text().replace("new/one.db", "new/other.db"))
    assert call("doctor", "-c", case, "--json").code == 3
    assert "A restore refuses it" in call("plan", "-c", case).out
    assert call("restore", "-c", case, "--dry-run").code == 3

"""The case file: what it gives, and how it complains."""

import os
import re
import shlex
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from migrate.case.deadline import parse_deadline
from migrate.case.loader import load
from migrate.case.model import Rank
from migrate.case.secrets import Secret
from migrate.case.template import TEMPLATE
from migrate.cli.export import _next_steps
from migrate.cli.progress.status_view import LocationStatus, Status, page_of
from migrate.engines import registry
from migrate.errors import UsageError
from migrate.number_text import local_moment_words
from tests.cli.conftest import call, make_file
from tests.tools.terminal import Terminal


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "moveout.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_template_is_a_case_file(tmp_path):
    case = load(write(tmp_path, TEMPLATE))
    assert case.name == "acme"
    assert list(case.sources) == ["app", "media"]
    assert set(case.destinations) == {"app", "media"}
    assert case.bundle.url == str(tmp_path / "bundle")
    assert case.transfer_to.url == "s3://evacuated/acme?profile=new"


def test_every_sample_of_the_template_holds_when_its_mark_is_taken_away(tmp_path):
    samples = re.sub(r'(?m)^# (\[{1,2}\w+\]{1,2}$|\w+ = ["\[\w].*$)', r"\1", TEMPLATE)
    case = load(write(tmp_path, samples))
    assert case.deadline == datetime(2026, 11, 29, 18, tzinfo=UTC)
    assert set(case.sources["media"].secrets) == {"access_key_id", "secret_access_key", "sse_c"}
    assert set(case.sources["app"].secrets) == {"password"}
    assert case.sources["media"].selection.current_only
    assert (case.reserve_seconds, case.sources["app"].rank) == (1800, Rank(1, 10.0))
    assert [(move.old, move.new.url) for move in case.moves] == [
        ("postgresql://reader@old.example:5432", "postgresql://owner@new.example:5432")
    ]
    assert [entry.reason for entry in case.left_out] == ["test data"]
    assert (case.workers, case.bwlimit, case.limits.max_connections) == (8, "50M", 4)
    assert (case.custody.release_quorum, len(case.custody.release_keys)) == (2, 2)


@pytest.mark.parametrize(("hours", "words"), [(30, "left"), (-2, "over")])
def test_status_says_how_much_time_is_left(hours, words, tmp_path):
    until = (datetime.now(UTC) + timedelta(hours=hours)).replace(microsecond=0)
    location = tmp_path / "bundle"
    location.mkdir()
    path = write(tmp_path, f'[case]\ndeadline = {until.isoformat()}\n[bundle]\nlocation = "{location}"\n')
    output = call("status", "-c", path).out
    assert re.search(rf"^deadline .* UTC: .* {words}\n", output)
    assert f"nothing is there yet; moveout run -c {path} brings a bundle" in output
    assert call("status", cwd=tmp_path).out.startswith("deadline ")
    assert call("status", "-c", path, "--json").json["result"]["deadline"] == until.isoformat()
    page = page_of(Status([], until), "acme").decode()
    assert re.search(rf"<p>Deadline [^<]* UTC: [^<]* {words}\.</p>", page), page


def test_the_page_says_when_the_switch_was_made():
    page = page_of(Status([LocationStatus("b", switched="2026-11-28T00:00:09.100+00:00")]), "").decode()
    assert "The switch was made at 2026-11-28 00:00 UTC; moveout cutover --undo" in page
    assert "made at soon;" in page_of(Status([LocationStatus("b", switched="soon")]), "").decode()


def test_a_deadline_without_a_zone_is_local_time(tmp_path):
    case = load(write(tmp_path, "[case]\ndeadline = 2026-11-25T18:00:00\n"))
    assert case.deadline == datetime(2026, 11, 25, 18).astimezone()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[case\n", "is not TOML"),
        ("[case]\nname = 'a'\ndeadline = 2026-12-02 18:00\n", r"is not TOML: .* line 3.*, at 'deadline'"),
        ("[sources]\n", "did you mean 'source'"),
        ("deadline = '30h'\n", r"'deadline' stands in no section; it belongs in \[case\]"),
        ("[bundle]\nworkers = 2\n", r"\[bundle\] has no 'workers'; it belongs in \[limits\]"),
        ("[bundle]\nurl = 'b'\n", "no 'url'; it may hold location"),
        (
            "[[source]]\nname='a'\nurl='postgresql://old/a'\n[[destination]]\nfrom='postgresql://odl'\nto=''\n",
            "postgresql://odl is the server of no",
        ),
        (
            "[[source]]\nname='a'\nurl='mysql://old/a'\n[[destination]]\nfrom='mysql://old'\nto='postgresql://new'\n",
            "number 1: to = 'postgresql://new' for mysql://old: it is no mysql:// address",
        ),
        (
            "[[source]]\nname='a'\nurl='mysql://old/a'\n[[destination]]\nfrom='mysql://old'\nto='me@new'\n",
            "to = 'me@new' for mysql://old: it is no mysql:// address",
        ),
        (
            "source = [{name='a', url='s3://a?p=o'}]\ndestination = [{from='s3://?p=o', to='s3://b/c?p=new'}]\n",
            r"it names a bucket, and buckets keep their names: write s3://\?p=new",
        ),
        (
            "[[source]]\nname='a'\nurl='mysql://old/a'\n[[destination]]\nsource='a'\nurl='a.db'\n",
            "'a': sqlite://.*/a.db is of another kind than mysql://old/a",
        ),
        ("[source]\nname = 'a'\n", r"\[\[source\]\]"),
        ("[[source]]\nname = 'a'\n", "needs url"),
        (
            "[[source]]\nname = 'a'\nurl = 's3://b'\nulr = 1\n",
            r"\[\[source\]\] number 1 .*did you mean 'url'",
        ),
        ("[[source]]\nname='a'\nurl='s3://b'\n[[source]]\nname='a'\nurl='s3://c'\n", "twice"),
        ("[[source]]\nname='a'\nurl='s3://b'\n[[destination]]\nsource='z'\nurl='s3://c'\n", "not among a"),
        ("[[source]]\nname='a'\nurl='postgresql://h/d'\npassword='hunter2'\n", "takes no secret itself"),
        ("[limits]\nworkers = 0\n", "from 1 to 256"),
        ("[case]\ndeadline = 'soon'\n", "is not a time"),
        ("[case]\ndeadline = '30h'\n", "would move"),
        ("[case]\nreserve = '30m'\n", "none is given"),
        ("[case]\ndeadline = 2030-01-01T00:00:00Z\nreserve = 'soon'\n", "is not a length of time"),
        ("[[source]]\nname='a'\nurl='s3://b'\npriority = 1.5\n", "1 goes before 2"),
        ("[[source]]\nname='a'\nurl='s3://b'\nvalue = -1\n", "at least 0"),
        (
            "[[source]]\nname='a'\nurl='postgresql://u:hunter2@h/d'\n",
            r"\[\[source\]\] number 1: .* a password in it",
        ),
        ("[[server]]\nurl='postgresql://u:hunter2@h/'\n", r"\[\[server\]\] number 1: .* a password in it"),
        ("[bundle]\nlocation='s3://u:hunter2@h/'\n", r"\[bundle\]: .* a password in it"),
        ("[[destination]]\nfrom='postgresql://[::1/'\n", r"\[\[destination\]\] number 1: .* is not a URL"),
        ('[[source]]\nname="a"\nurl="a\\u0000b"\n', r"\[\[source\]\] number 1: url has a zero byte in it"),
        (f"[bundle]\nlocation='{'a' * 9000}'\n", r"\[bundle\]: location has 9,000 characters"),
        (f"[[source]]\nname='a'\nurl='{'a' * 5000}'\ninclude = 1\n", "include must be a list"),
        ("[[source]]\nname='a'\nurl='s3://b'\nmin_size = 'x'\n", "min_size: 'x' is not a size"),
        ("[[source]]\nname='a'\nurl='s3://b'\ncurrent_only = 1\n", "current_only must be true or false"),
        (f"[case]\nname = {'[' * 9000}", "it is nested too deeply"),
        (f"[limits]\nworkers = {'9' * 5000}\n", "a number has more than 4300 digits"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path, text, complaint):
    path = write(tmp_path, text)
    with pytest.raises(UsageError, match=complaint) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert caught.value.next_step
    assert "hunter2" not in str(caught.value)


def test_brackets_that_are_missing_are_named(tmp_path):
    path = write(tmp_path, "[source]\nname = 'a'\n[source]\nname = 'b'\n")
    with pytest.raises(UsageError, match="Cannot declare") as caught:
        load(path)
    assert caught.value.next_step == "write two brackets where it may stand several times: [[source]]"


def test_a_second_destination_of_a_source_is_named_with_the_command_that_fills_it(tmp_path):
    place = '[[destination]]\nsource = "a"\nurl = "postgresql://h/{}"\n'
    path = write(tmp_path, place.format("one") + place.format("two"))
    with pytest.raises(UsageError, match="number 2: 'a' stands there twice") as caught:
        load(path)
    assert f"moveout restore -c {path} a=URL" in caught.value.next_step


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "none.toml")
    assert "moveout init" in caught.value.next_step
    assert f"moveout discover URL … --to {tmp_path}/none.toml" in caught.value.next_step


def test_bytes_that_are_not_text_are_refused(tmp_path):
    path = tmp_path / "moveout.toml"
    path.write_bytes(b"[case]\nname = '\xff'\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(path)


def test_secrets_come_from_the_environment_a_file_or_a_command(tmp_path, monkeypatch):
    monkeypatch.setenv("OLD_PASSWORD", "one")
    (tmp_path / "secret").write_text("two\n")
    assert Secret("env:OLD_PASSWORD").reveal() == "one"
    assert Secret("file:secret", tmp_path).reveal() == "two"
    assert Secret("command:printf three").reveal() == "three"


@pytest.mark.parametrize(
    "reference", ["env:NOT_SET_ANYWHERE", "file:/no/such/file", "command:false", "command:"]
)
def test_a_secret_that_cannot_be_had_is_a_usage_error(reference):
    with pytest.raises(UsageError):
        Secret(reference).reveal()


@pytest.mark.parametrize("text", ["99999999999d", "²d", "d", "-3d", "9999-12-31T23:59:59-23:59x", ""])
def test_what_is_no_moment_is_said_so(text):
    with pytest.raises(UsageError, match="is not a time"):
        parse_deadline(text)


@pytest.mark.parametrize(("text", "hours"), [("30h", 30), ("90m", 1.5), ("1d12h", 36), ("1d 2h 30m", 26.5)])
def test_a_deadline_may_be_relative_on_the_command_line(text, hours):
    left = (parse_deadline(text) - datetime.now(UTC)).total_seconds()
    assert hours * 3600 - 5 < left <= hours * 3600


def test_a_deadline_may_name_its_time_zone(tmp_path):
    moment = datetime(2026, 11, 28, 17, tzinfo=UTC)
    assert parse_deadline("2026-11-28 18:00 Europe/Berlin") == moment
    case = load(write(tmp_path, '[case]\ndeadline = "2026-11-28 18:00 Europe/Berlin"\n'))
    assert (case.deadline, case.deadline_is_local) == (moment, False)
    with pytest.raises(UsageError, match="is not a time zone that this machine knows"):
        parse_deadline("2026-11-28 18:00 Europe/Nowhere")


def test_a_moment_is_shown_in_the_time_of_this_machine_too(monkeypatch):
    moment = datetime(2026, 11, 28, 23, 30, tzinfo=UTC)
    try:
        for zone, here in (("Europe/Berlin", " (2026-11-29 00:30 CET here)"), ("UTC", "")):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert local_moment_words(moment) == f"2026-11-28 23:30 UTC{here}"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_new_case_file_has_a_deadline_to_come_and_every_kind_of_source(tmp_path):
    path = tmp_path / "moveout.toml"
    assert call("init", path).code == 0
    left = (load(path).deadline - datetime.now(UTC)).total_seconds()
    assert 30 * 3600 - 60 < left <= 30 * 3600
    # Without the comments' marks it is a case, too: every example in it can be read.
    examples = re.findall(r'^# url = "([^"]+)"', path.read_text(), re.MULTILINE)
    assert {url.partition("://")[0] for url in examples} == {"mysql", "sqlite", "postgresql", "s3"}
    assert all(registry.find(url) for url in examples)


def test_init_asks_the_servers_that_it_is_told_of(tmp_path):
    """By URLs, or on a terminal by answers; a file that exists is never overwritten."""
    files = tmp_path / "srv"
    files.mkdir()
    with closing(sqlite3.connect(files / "app.db")) as made, made:
        made.execute("CREATE TABLE t AS SELECT 1 AS x")
    ended = call("init", tmp_path / "a.toml", files)
    assert (ended.code, list(load(tmp_path / "a.toml").sources)) == (0, ["app"]), ended
    terminal = Terminal("init", tmp_path / "b.toml")
    terminal.answer("Where is the old host?", "old.example")
    terminal.answer("'old.example' is neither a URL nor a path", f'"{files}"')
    terminal.answer("When does it shut down?", "tomorrow")
    terminal.answer("'tomorrow' is not a time", "2099-01-01 12:00 Europe/Berlin")
    terminal.wait_for(f"Where does sqlite://{files} come up again?")
    terminal.wait_for("to be filled in:")
    time.sleep(0.6)
    assert terminal.text.rstrip().endswith("to be filled in:"), "nothing is drawn over the question"
    terminal.type("mysql://me@new\n")
    terminal.answer("mysql://me@new: it is no sqlite:// address", f"'{tmp_path}/new'")
    assert terminal.end() == 0
    asked = load(tmp_path / "b.toml")
    assert (list(asked.sources), asked.deadline) == (["app"], datetime(2099, 1, 1, 11, tzinfo=UTC))
    assert [move.new.url for move in asked.moves] == [f"sqlite://{tmp_path}/new"]
    assert call("run", "-c", tmp_path / "b.toml").code == 0
    assert (tmp_path / "new/app.db").exists()
    terminal = Terminal("init", tmp_path / "c.toml")
    terminal.answer("Where is the old host?", "")
    assert terminal.end() == 0
    assert list(load(tmp_path / "c.toml").sources) == ["app", "media"], "the example"
    for words in ((tmp_path / "a.toml", files), (tmp_path / "c.toml",)):
        assert call("init", *words).code == 2
    two = call("init", tmp_path / "x.toml", tmp_path / "missing")
    assert (two.code, "would both be the case file" in " ".join(two.err.split())) == (2, True)


def test_a_database_file_may_stand_as_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = """
[[source]]
name = "notes"
url = "/srv/it's 100%.db"
[[destination]]
source = "notes"
url = "new/notes.sqlite"
"""
    case = load(write(tmp_path, text))
    assert case.sources["notes"].url == "sqlite:///srv/it%27s%20100%25.db"
    assert case.destinations["notes"].url == f"sqlite://{tmp_path}/new/notes.sqlite"


def test_a_source_that_is_named_with_its_case_has_what_the_case_says_of_it(tmp_path, postgres, shop):
    """By its name, by its URL, and where a pattern of the case means it: else its password would be missing."""
    case, env = (
        tmp_path / "moveout.toml",
        {"PGPASSFILE": os.devnull, "PGPASSWORD": None, "MINE": postgres.password},
    )
    server = shop.rpartition("/")[0]
    for url, words in ((shop, ("app", shop, f"other={shop}")), (f"{server}/*", (shop,))):
        name = 'name = "app"\n' if url == shop else ""
        case.write_text(f'[[source]]\n{name}url = "{url}"\npassword = "env:MINE"\n')
        for word in words:
            ended = call("plan", "-c", case, word, "--json", env=env)
            assert (ended.code, len(ended.json["result"]["sources"])) == (0, 1), ended


def test_an_export_of_some_sources_of_a_case_names_the_export_of_all(tmp_path):
    files = [tmp_path / "app" / name for name in ("a.db", "b.db")]
    (tmp_path / "app").mkdir()
    sources = ""
    for file in files:
        make_file(file)
        sources += f'[[source]]\nname = "{file.stem}"\nurl = "sqlite://{file}"\n'
    case = write(
        tmp_path, f'[bundle]\nlocation = "bundle"\n[[server]]\nurl = "sqlite://{tmp_path}/app"\n{sources}'
    )
    alone = call("export", "-c", case, "a", "--to", tmp_path / "alone")
    assert (alone.code, "not taken" in alone.out) == (0, False), alone
    assert call("export", "-c", case).code == 0
    refused = call("export", "-c", case, "a", "--json")
    assert refused.code == 2
    step = refused.json["error"]["next"]
    assert f"moveout export -c {case} exports all of the case" in step
    assert "--drop" not in step


def test_the_steps_after_an_export_name_its_case_file_and_what_that_lacks(tmp_path):
    case = write(tmp_path, TEMPLATE)
    assert [step.partition(": ")[2] for step in _next_steps(None, load(case))] == [
        f"moveout verify -c {case}",
        f"moveout transfer -c {case}",
        f"moveout restore -c {case}",
    ]
    case = write(tmp_path, "[bundle]\nlocation = 'b'\n[[source]]\nname = 'app'\nurl = 'app.db'\n")
    lacking = _next_steps(None, load(case))
    assert lacking[2].endswith(f"moveout restore -c {case} URL …")
    ended = call(*shlex.split(lacking[1].partition(": moveout ")[2])[:-1], tmp_path / "copy")
    assert (ended.code, f"there is nothing at file://{tmp_path}/b" in ended.err) == (7, True), ended.err
    assert _next_steps("my dir", None)[2].endswith("moveout restore 'my dir' URL …")

"""Names and texts that somebody else chose command no terminal: what might be obeyed is shown as an escape."""

import re
import sqlite3
from contextlib import closing

import pytest

from exporters.api import Gap
from exporters.discovery import Discovery, FoundSource
from exporters.doctor import Examination, Finding, Fix
from migrate.cli.common import rich_terminal
from migrate.cli.common.session import Session
from migrate.cli.common.summary_lines import (
    SourceFailure,
    SummaryLine,
    SummaryRow,
    draw_gaps,
    draw_rows,
    draw_summary,
)
from migrate.cli.common.terminal import Console, Heading, Text, plain
from migrate.cli.custody.grant import RevokedGrants
from migrate.cli.custody.grant_links import Linked
from migrate.cli.custody.hold_source import SourceHolds
from migrate.cli.discover import Discovered
from migrate.cli.doctor import Diagnosis
from migrate.cli.get import Got
from migrate.custody import documents, receipt
from migrate.custody.grants import Revoked
from migrate.custody.log import custody_log
from migrate.custody.log.entry import CustodyEvent
from migrate.custody.signing.keys import KeyFile, PublicKey, create
from migrate.custody.source_holds.source_hold import Standing
from migrate.custody.tree import bundle_tree
from migrate.discover.servers import ServerAnswer
from migrate.doctor.run import Examinations, Examined
from migrate.errors import UsageError
from migrate.progress.meter import Meter
from scripts.shelf import shelf
from tests.cli.conftest import call
from tests.tools.terminal import console_in_memory

EVIL = "a\x1b[31mred\x9b2J\u202ecod\rover\nnext"
SHOWN = r"a\x1b[31mred\x9b2J\u202ecod\rover\nnext"


def is_harmless(said) -> bool:
    return all(char.isprintable() or char == "\n" for char in said.out + said.err)


def test_a_key_a_receipt_and_a_name_are_shown_and_not_obeyed(tmp_path):
    bundle, own, others = tmp_path / "bundle", tmp_path / "own", tmp_path / "others"
    location = shelf(str(bundle), 3, odd=(EVIL,))
    mine, stranger = create(own, "host", None), create(others, "stranger", None)
    theirs = KeyFile(PublicKey(stranger.public.raw, " ".join(EVIL.split())), stranger._private)
    bundle_tree.store_tree(location, [mine])
    allowed = tmp_path / "allowed"
    allowed.write_text(f"host {mine.public.line}\n")
    proved = call("prove", bundle, EVIL, "--to", tmp_path / "proofs")
    (file,) = (tmp_path / "proofs").iterdir()
    checked = call("check-proof", file, "--signers", allowed)
    value = dict(receipt.write(location, receipt.Checked("full", 1, 1, [])).value) | {"about": EVIL}
    document = documents.make("receipt", EVIL, value)
    documents.keep(location, document, [theirs])
    what = CustodyEvent("received", "b", document.root, location.location, {"file": document.key, "x": EVIL})
    custody_log.append(location, theirs, lambda _: [what])
    shown = call("custody", "show", bundle)
    listed = call("ls", bundle)
    for said in (proved, checked, shown, listed):
        assert is_harmless(said), said
    for said in (proved, checked, shown):
        assert SHOWN in said.out
    assert shown.out.count(SHOWN) == 2  # a detail, and the first line of a receipt
    assert rf"\x9b2J\u202ecod over next (says the key {stranger.public.fingerprint})" in shown.out
    refused = call("prove", bundle, f"no {EVIL}")
    assert (refused.code, is_harmless(refused)) == (7, True), refused.err
    assert f"→ moveout ls file://{bundle}" in refused.err
    narrow = {"TTY_COMPATIBLE": "1", "NO_COLOR": "1", "COLUMNS": "60"}
    for words in (("custody", "show", bundle), ("clock", bundle)):
        lines = re.sub(r"\x1b\[[0-9;]*m", "", call(*words, env=narrow).out).splitlines()
        assert [line for line in lines if len(line) > 60 and len(max(line.split(), key=len)) < 40] == [], (
            words
        )


def test_a_name_with_a_newline_makes_no_line_of_its_own(tmp_path, monkeypatch):
    """In a table of columns it would make a row that somebody else has written."""
    monkeypatch.setenv("COLUMNS", "80")
    source = f"a=sqlite://{tmp_path}/a.db"
    with closing(sqlite3.connect(tmp_path / "a.db")) as made:
        made.execute(f'CREATE TABLE "{EVIL}" (x)')
        made.execute(f'INSERT INTO "{EVIL}" VALUES (1)')
        made.commit()
    assert call("export", source, "--to", tmp_path / "bundle").code == 0
    for words in (
        ("plan", source, "--deadline", "30h"),
        ("ls", tmp_path / "bundle"),
        ("ls", tmp_path / "bundle", "--source", "a"),
    ):
        ended = call(*words)
        assert is_harmless(ended), ended
        assert SHOWN in ended.out, ended


def test_a_database_with_a_problem_makes_no_line_of_its_own(capsys):
    source = FoundSource("postgresql://h/x", EVIL, problems=("it may not be read",))
    shown = Discovered([ServerAnswer("postgresql://h", Discovery([source]))], None, [], [])
    shown.draw(Console())
    assert f"! {SHOWN}: it may not be read\n" in capsys.readouterr().out


def test_what_a_log_or_a_server_names_makes_no_line_of_its_own(capsys):
    """The key of a grant, and the rule of a bucket that a hold suspends."""
    RevokedGrants("acme", Revoked([EVIL], [])).draw(Console())
    SourceHolds([Standing("media", "s3://b", [EVIL], [], [])], "").draw(Console())
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if SHOWN in line] == [
        f"These keys of acme read nothing any more: {SHOWN}",
        f"  in force: {SHOWN}",
    ]
    assert len(lines) == 4


def test_the_commands_that_fetch_by_links_are_on_lines_of_their_own():
    console, written = console_in_memory(40)
    script = "/srv/grants of customers/fetch-acme.sh"
    Linked("s3://b/x", "acme", script, "fetch.aria2", "fetch.html", 12, "soon").draw(console)
    assert f"  sh '{script}' DIRECTORY\n  aria2c -i fetch.aria2\n" in written.getvalue()


def test_a_path_that_somebody_copies_is_not_broken():
    console, written = console_in_memory(40)
    path = "/srv/a folder of objects/with many words in its name/key"
    Got("bundle", {"a key with words": path}).draw(console)
    assert f"a key with words  → {path}\n" in written.getvalue()


def test_what_looks_like_markup_is_text(tmp_path):
    """A path may be named as a style is opened or closed, or as a picture."""
    location, odd = tmp_path / "bundle", tmp_path / "q[/x] [red] :warning:"
    odd.mkdir(parents=True)
    with closing(sqlite3.connect(odd / "a.db")) as made, made:
        made.execute("CREATE TABLE t (x)")
    source = f"a=sqlite://{odd}/a.db"
    assert call("export", source, "--to", location).code == 0
    agreed = call("verify", location, "--against", source)
    assert (agreed.code, f"a and sqlite://{odd}/a.db agree" in agreed.out) == (0, True), agreed


def test_a_long_sentence_is_wrapped_below_itself_on_a_terminal_and_is_one_line_elsewhere():
    why = "not restored: there is no directory /srv/new, and nothing else of it comes up before it is made"
    lines = [SummaryLine("notes", "no", why, "mkdir -p /srv/new")]
    drawn = {}
    for is_terminal in (True, False):
        console, written = console_in_memory(60, is_terminal=is_terminal)
        draw_summary(console, lines)
        drawn[is_terminal] = written.getvalue().splitlines()
    assert drawn[False][1] == f"notes   {why}"
    wrapped = drawn[True]
    assert all(len(line) <= 60 for line in wrapped)
    assert " ".join(line[8:] for line in wrapped[1:3]) == why
    assert wrapped[2].startswith("        ")
    assert wrapped[3] == "        → mkdir -p /srv/new"
    narrow, written = console_in_memory(50)
    draw_rows(narrow, [SummaryRow(("notes", "no" * 10, "much to say of it"))])
    assert written.getvalue().splitlines() == [f"notes  {'no' * 10}  ", "       much to say of it"]


def test_a_number_and_its_unit_stay_on_one_line(tmp_path):
    sentence = "It ends 2026-12-01 17:05 UTC, with 29 h 58 min to spare, after 37 files of 69 MB at 8.8 MB/s"
    whole = ("2026-12-01 17:05 UTC", "29 h 58 min", "37 files", "69 MB", "8.8 MB/s")
    for width in range(30, 80):
        console, written = console_in_memory(width)
        console.print(sentence, wrap=True)
        draw_summary(console, [SummaryLine("a", "no", sentence)])
        lines = written.getvalue().splitlines()
        assert max(map(len, lines)) <= max(width, 40)
        assert all(sum(words in line for line in lines) == 2 for words in whole), lines


def test_gaps_of_one_reason_are_one_line(capsys):
    gaps = [Gap(f"k{number}", "failed", f"k{number}: timed out") for number in range(9)]
    draw_gaps(Console(), [*gaps, Gap("z", "excluded", "a marker")], 12, 2, "gaps.parquet")
    assert capsys.readouterr().out.splitlines() == [
        "  failed: k0, k1, k2 and 6 more: timed out",
        "  excluded: z: a marker",
        "  and 2 more; all names: gaps.parquet",
    ]


def test_a_fix_that_is_wider_than_the_terminal_begins_on_a_line_of_its_own():
    sql = 'ALTER TABLE "social"."activity_2024" REPLICA IDENTITY FULL;'
    finding = Finding("info", "changes", "t", "a", "b", Fix("sql", sql, "127.0.0.1:21054"))
    shown = Diagnosis(
        Examinations([Examined("source", "a", "u", Examination({}, [finding]))]), only_findings=True
    )
    console, written = console_in_memory(80)
    shown.draw(console)
    assert f"       → on 127.0.0.1:21054: \n         {sql}\n" in written.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80])
def test_each_source_that_doctor_examined_is_a_line_on_a_narrow_terminal(width):
    facts = {
        "server": "PostgreSQL 15.18",
        "TLS": "none",
        "rights": "all",
        "snapshot": "exact",
        "changes": "-",
    }
    facts |= {"snapshot": "versions"} if width == 80 else {}
    console, written = console_in_memory(width)
    examined = [
        Examined("source", "shop-media-1" if width < 80 else "127.0.0.1:54321", "u", Examination(facts, [])),
        Examined("location", "bundle", "u", Examination({"server": "directory", "room": "51.2 GB"}, [])),
    ]
    Diagnosis(Examinations(examined)).draw(console)
    lines = written.getvalue().splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["source", examined[0].name], lines
    assert (lines[2].strip(), lines[3].split()[0]) == ("", "location"), lines


def test_a_reason_that_several_sources_have_is_printed_once():
    lines = [
        SourceFailure(name, f"s3://{name}", UsageError(why, next_step="mend it")).summary("not exported")
        for name, why in (("a", "it is shut"), ("b", "it is shut"), ("c", "it is gone"))
    ]
    console, written = console_in_memory(80)
    draw_summary(console, lines)
    assert written.getvalue().splitlines()[1:] == [
        "a       not exported: it is shut",
        "        → mend it",
        "b       not exported, for the same reason as a",
        "c       not exported: it is gone",
        "        → mend it",
    ]


def test_what_is_wrong_with_a_whole_server_is_printed_once():
    advice = Fix("advice", "make it")
    findings = [
        Finding(
            "blocks",
            "usage",
            f"s3://{name}?profile=x",
            "there is no profile",
            "Nothing of it leaves.",
            advice,
        )
        for name in "ab"
    ]
    console, written = console_in_memory(80)
    examined = [Examined("source", find.object[5], find.object, Examination({}, [find])) for find in findings]
    Diagnosis(Examinations(examined), only_findings=True).draw(console)
    assert written.getvalue().startswith(
        "blocks source a, source b\n       s3://?profile=x: there is no profile\n       Nothing of it leaves.\n"
    )
    console, written = console_in_memory(80)
    Diagnosis(Examinations(examined[:1]), only_findings=True).draw(console)
    assert "s3://a?profile=x: there is no profile" in written.getvalue()


def test_results_are_broken_at_spaces_on_a_terminal(tmp_path):
    source = f"a=sqlite://{tmp_path}/a.db"
    with closing(sqlite3.connect(tmp_path / "a.db")) as made:
        made.execute("CREATE TABLE t (x)")
        made.commit()
    narrow = {"TTY_COMPATIBLE": "1", "NO_COLOR": "1", "COLUMNS": "60"}
    for words in (
        ("export", source, "--to", "bundle", "-q"),
        ("status", "bundle"),
        ("verify", "bundle", "-q"),
    ):
        output = re.sub(r"\x1b\[[0-9;]*m", "", call(*words, env=narrow, cwd=tmp_path).out)
        assert [line for line in output.splitlines() if len(line) > 60 and " " in line.strip()] == [], output
        assert ("moveout restore" in output) == (words[0] == "export"), output


ODD = "no\ttable\nin \x1b[31mred\x9b2J\u202ecod "
PRINTED = [
    ((Text.assemble(("moveout: ", "bold red"), ODD, Text("é", "dim")),), {}),
    ((Text("a line that ends in spaces  ", "yellow"),), {}),
    (("[b]no markup[/b] :warning: " * 9, 17), {"style": "dim"}),
    ((Heading("summary"),), {}),
    ((), {}),
    ((Text("no newline"),), {"end": ""}),
]


@pytest.mark.parametrize(("objects", "options"), PRINTED)
def test_a_pipe_gets_by_our_own_console_what_rich_would_write(objects, options, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    rich_terminal.make_console(plain).print(*objects, **options)
    by_rich = capsys.readouterr().out
    console = Console()
    console.print(*objects, **options)
    assert (capsys.readouterr().out, console.is_terminal) == (by_rich, False)


def test_a_terminal_gets_our_own_text_with_its_styles(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    text = Text("app: 3 gaps", "bold")
    text.append(", late", "red")
    text.append(" today", "not bold")
    Console().print(Text.assemble("  ", text, (".", "green")))
    shown = "  \x1b[1mapp: 3 gaps\x1b[0m\x1b[1;31m, late\x1b[0m today\x1b[32m.\x1b[0m\n"
    assert capsys.readouterr().out == shown


STEPS = [
    "→ once the reasons are gone, run the same command again; what is done stays done, and nothing is copied twice",
    "→ moveout clean -c /srv/customers/old/moveout.toml --changes --yes ends it for good; then remove the folder of it",
    '  → "moveout restore /srv/the bundle" app=postgresql://me@new.example/app goes on, as often as you like, "a b"',
    "! app: the server keeps changes for five hours only: ALTER SYSTEM SET wal_keep_size = '64GB'; then restart it",
    "moveout: there is no directory /srv/a-rather-long-name/of-a-directory/on-a-disk, and none is made for a bundle",
]


@pytest.mark.parametrize("step", STEPS)
def test_a_long_next_step_is_broken_at_spaces_but_in_no_command(step, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    Console().print(step)
    assert capsys.readouterr().out == f"{step}\n"
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    Console().print(step)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join([lines[0], *(line.strip() for line in lines[1:])]) == step
    command = re.search(r'moveout clean.*(?= ends)|"[^"]*"|ALTER[^;]*', step)
    assert command is None or any(command[0] in line for line in lines)
    assert all(len(line) <= 60 for line in lines if command is None or command[0] not in line)
    assert len(lines) > 1


def test_a_style_goes_on_behind_a_break(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "12")
    Console().print(Text.assemble(("! ", "yellow"), ("app wants ink", "bold")))
    shown = "\x1b[33m! \x1b[0m\x1b[1mapp wants\x1b[0m\n  \x1b[1mink\x1b[0m\n"
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(("command", "end"), [("verify", "again\n"), ("export", "again: it continues\n")])
def test_an_interrupted_command_is_not_said_to_continue_where_it_begins_anew(command, end):
    console, written = console_in_memory(80)
    meter = Meter()
    session = Session(command, False, False, False, True, None, None, console, console, meter, meter)
    assert session.interrupted() == 130
    assert written.getvalue().endswith(f"→ run the same command {end}")

"""What people do wrong, and what they are told: the thing and the next step. Counts are of all, not of some."""

import contextlib
import io
import re
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from migrate.errors import NoSpaceError
from migrate.storage.registry import open_location
from tests.cli.conftest import call, make_file
from tests.tools.clients import boto_client
from tests.tools.terminal import Terminal

TOO_MANY = 1100


@pytest.fixture(scope="module")
def littered(tmp_path_factory):
    """A directory with one database and files that are none, and its bundle."""
    folder = tmp_path_factory.mktemp("littered")
    with closing(sqlite3.connect(folder / "a.db")) as made, made:
        made.execute("CREATE TABLE t (x)")
        made.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(20)])
    for number in range(TOO_MANY):
        (folder / f"{number}.txt").write_text("no database")
    location = tmp_path_factory.mktemp("bundle")
    ended = call("export", f"a=sqlite://{folder}", "--to", location)
    assert ended.code == 0
    return folder, location, ended.out


def test_gaps_that_are_not_shown_are_counted_all(littered):
    _, location, output = littered
    words = "  excluded: 0.txt, 1.txt, 10.txt and 997 more: it is no SQLite database, or an encrypted one\n"
    assert words + "  and 100 more; all names: the bundle's data/gaps.parquet" in output, output
    assert (location / "data/gaps.parquet").exists()
    assert "    and 100 more\n" in call("status", location).out


@pytest.mark.parametrize("words", ["custody show", "clock", "hold status", "prove {} x", "audit {} --key k"])
def test_a_location_that_is_nothing_is_not_said_to_lack_a_log_a_hold_or_a_tree(words, tmp_path):
    assert call("keys", "init", "k", "-q", cwd=tmp_path).code == 0
    words = words if "{}" in words else f"{words} {{}}"
    ended = call(*words.format("nowhere").split(), cwd=tmp_path)
    assert (ended.code, "there is nothing at file://" in ended.err) == (7, True), ended


def test_a_rate_that_is_none_ends_a_run_before_its_first_step(littered, tmp_path):
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[[source]]\nname = "a"\nurl = "sqlite://{littered[0]}"\n[bundle]\nlocation = "{tmp_path}/b"\n'
    )
    ended = call("run", "-c", case, "--bwlimit", "10MM")
    assert (ended.code, ended.out, ended.err.count("'10MM' is not a rate")) == (2, "", 1), ended
    case.write_text(f'{case.read_text()}[limits]\nbwlimit = "fast"\n')
    ended = call("run", "-c", case)
    assert (ended.code, f"{case}: [limits] bwlimit: 'fast' is not a rate" in ended.err) == (2, True), ended
    assert not (tmp_path / "b").exists()


def test_clean_asks_whether_the_url_is_right_where_nothing_is(littered, tmp_path):
    words = "nothing is there at all: is the URL right?"
    assert words in call("clean", tmp_path / "none").out
    assert words not in call("clean", littered[1]).out


def test_a_plan_shows_some_warnings_and_counts_the_rest(littered):
    output = call("plan", f"a=sqlite://{littered[0]}").out
    assert (output.count("it is no SQLite database"), "! and 1,080 more (all with --json)" in output) == (
        20,
        True,
    )


@pytest.mark.parametrize(("free", "code", "words"), [(5, 8, "TOO LITTLE DISK"), (10**9, 0, "IN TIME")])
def test_a_plan_says_where_there_is_no_room_for_the_bundle(tmp_path, monkeypatch, free, code, words):
    with closing(sqlite3.connect(tmp_path / "a.db")) as made, made:
        made.execute("CREATE TABLE t AS SELECT zeroblob(5000) AS x")
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[[source]]\nname = "a"\nurl = "sqlite://{tmp_path}/a.db"\n[bundle]\nlocation = "to/be"\n'
    )
    real = shutil.disk_usage

    def usage(path):
        return SimpleNamespace(free=free) if Path(path).is_relative_to(tmp_path) else real(path)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    for options in (("-c", case), (f"a=sqlite://{tmp_path}/a.db", "--to", tmp_path / "to")):
        planned = call("plan", *options, "--deadline", "30h")
        assert planned.code == code, planned
        assert words in planned.out
        assert bool(re.search("has 5 B free, and the bundle takes about [0-9.]+ k?B", planned.out)) is (
            free == 5
        )


def test_a_plan_is_made_for_a_full_disk_too(littered, monkeypatch, tmp_path):
    def full(_store):
        raise NoSpaceError("no space")

    monkeypatch.setattr("migrate.cli.plan.measure_location", full)
    monkeypatch.setattr("migrate.cli.plan.free_bytes", lambda *_, **__: 5)
    case = tmp_path / "moveout.toml"
    case.write_text(f'[[source]]\nname = "a"\nurl = "sqlite://{littered[0]}"\n[bundle]\nlocation = "to"\n')
    planned = call("plan", "-c", case)
    assert (planned.code, "the bundle's location has 5 B free" in planned.out) == (8, True), planned


def test_who_names_no_source_is_told_of_the_case_file_that_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "moveout init writes one" in call("doctor").err
    (tmp_path / "moveout.toml").write_text("")
    for command in ("discover", "transfer", "clean", "restore", "export"):
        ended = call(command)
        assert (ended.code, "-c moveout.toml" in ended.err) == (2, True), ended.err
    looking = ("doctor", "plan", "status", "verify", "report", "ls", "clock", "grant list", "hold status")
    for command in (*looking, "custody show", "custody verify"):  # they only look, and take it
        ended = call(*command.split())
        assert (ended.code, "moveout.toml is empty" in ended.err) == (2, True), ended.err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("postgresql:/me@host", "write postgresql://me@host"),
        ("postgresql//me@host", "write postgresql://me@host"),
        ("s3:media?profile=old", "write s3://media?profile=old"),
        ("postgresql://me@host:54321234", "54321234 is no port"),
        ("postgresql://me@host:5432,other:0/db", "0 is no port"),
    ],
)
def test_a_mistyped_url_is_no_directory_and_no_defect(typed, told):
    ended = call("discover", typed)
    assert (ended.code, told in " ".join((ended.out + ended.err).split())) == (2, True), ended


def test_a_restore_by_a_case_whose_bundle_is_not_there_says_so(tmp_path):
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[bundle]\nlocation = "bundle"\n[[source]]\nname = "a"\nurl = "sqlite://{tmp_path}/old/a.db"\n'
        f'[[destination]]\nfrom = "sqlite://{tmp_path}/old"\nto = "sqlite://{tmp_path}/new"\n'
    )
    ended = call("restore", "-c", case)
    assert (ended.code, "there is nothing at" in ended.err) == (7, True), ended.err


def test_what_cannot_be_written_is_not_called_a_full_disk(littered, tmp_path):
    (tmp_path / "file").write_text("")
    below = call("get", littered[1], "t", "--to", tmp_path / "file" / "below")
    assert (below.code, "is a file, not a directory\n→ name a directory" in below.err) == (7, True), below
    onto = call("get", littered[1], "t", "--to", tmp_path / "file")
    assert (onto.code, f"{tmp_path}/file exists already" in onto.err) == (2, True), onto


@pytest.mark.parametrize("rows", ["5:2", "3:3"])
def test_a_range_without_rows_is_a_mistake(littered, rows):
    ended = call("get", littered[1], "t", "--rows", rows)
    assert (ended.code, ended.out) == (2, "")
    assert "→ the first is 0" in ended.err


@pytest.mark.parametrize("kind", ["create", "session", "links"])
def test_a_grant_that_would_be_over_is_not_made(kind):
    ended = call("grant", kind, "s3://bucket/location", "--to", "customer", "--expires", "2020-01-01")
    assert (ended.code, "'2020-01-01' is past" in ended.err) == (2, True), ended


def test_the_public_half_is_shown_without_the_passphrase(tmp_path):
    key = tmp_path / "own"
    assert (
        call("keys", "init", key, "--name", "host", "--passphrase", "env:WORD", env={"WORD": "w"}).code == 0
    )
    shown = call("keys", "show", key, f"{key}.pub")
    assert shown.code == 0
    assert shown.out.count(f"host {key.with_suffix('.pub').read_text().strip()}") == 2
    missing = call("keys", "show", tmp_path / "none")
    assert (missing.code, "none.pub cannot be read: No such file" in missing.err) == (2, True), missing


def test_a_wrong_passphrase_says_where_to_look(tmp_path):
    key = tmp_path / "own"
    call("keys", "init", key, "--passphrase", "env:WORD", env={"WORD": "right"})
    ended = call("sign", tmp_path, "--key", key, "--passphrase", "env:WORD", env={"WORD": "wrong"})
    assert (ended.code, "→ look at what --passphrase" in ended.err) == (4, True), ended


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("file:none", "none cannot be read: No such file or directory\n→ write the secret there"),
        ("command:sh -c 'exit 3'", "'sh' failed: it ended with 3\n→ run it by hand"),
        ("env:MOVEOUT_NO_SUCH", "the environment has no MOVEOUT_NO_SUCH\n→ export MOVEOUT_NO_SUCH="),
    ],
)
def test_a_secret_that_is_not_to_be_had_says_what_to_do(tmp_path, reference, said):
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[[source]]\nname = "a"\nurl = "postgresql://me@127.0.0.1:1/x"\npassword = "{reference}"\n'
    )
    ended = call("plan", "-c", case)
    assert (ended.code, said in ended.err) == (2, True), ended


def test_a_location_that_is_a_file_is_named_and_no_bundle_is_said_to_be_missing(tmp_path):
    location, bundle, source = tmp_path / "file", tmp_path / "bundle", f"app=sqlite://{tmp_path}/app.db"
    location.write_text("")
    sqlite3.connect(tmp_path / "app.db").execute("CREATE TABLE t (x)").connection.close()
    assert call("export", source, "--to", bundle, "--allow-empty").code == 0
    for words in (("export", source, "--to", location), ("verify", location), ("transfer", bundle, location)):
        ended = call(*words)
        assert (ended.code, f"{location} is a file, not a directory" in ended.err) == (7, True), ended
    below = call("restore", bundle, f"app=sqlite://{location}/new.db")
    assert (below.code, f"{location} is a file, not a directory" in below.err) == (2, True), below


def test_files_that_are_not_the_bundles_are_named_and_nothing_of_it_is_called_damaged(tmp_path):
    make_file(tmp_path / "app.db")
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[[source]]\nname = "app"\nurl = "sqlite://{tmp_path}/app.db"\n[bundle]\nlocation = "bundle"\n'
    )
    assert call("run", "-c", case).code == 0
    extra, bundle = ("data/app/tables/t/more.parquet", "notes.txt"), tmp_path / "bundle"
    for name in extra:
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text("more")
    for level in ("complete", "full"):
        ended = call("verify", bundle, "--level", level)
        assert (ended.code, "is whole: " in ended.out, "damaged" in ended.out) == (6, True, False), ended
        assert all(f"{name}: is not in " in ended.out for name in extra)
        assert "→ find out who wrote these files" in ended.out
        assert "transfer" not in ended.out
    findings = call("verify", bundle, "--json").json["result"]["findings"]
    assert [(finding["key"], finding["extra"]) for finding in findings] == [(name, True) for name in extra]
    moved = call("transfer", bundle, tmp_path / "copy")
    assert (moved.code, "The bundle lies whole at" in moved.out, "repair" in moved.out) == (6, True, False)
    assert call("verify", tmp_path / "copy").code == 0
    again = call("run", "-c", case)
    assert (again.code, "Verified: 0 of 1 source; extra files: app." in again.out) == (6, True), again
    assert "damaged" not in again.out
    (bundle / "data/catalog.parquet").unlink()
    damaged = call("verify", bundle)
    assert (damaged.code, "is damaged (" in damaged.out) == (6, True), damaged


def _with_one_damaged_byte(whole):
    return (whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in range(len(whole)))


def _reads_as_empty(data):
    with contextlib.suppress(pa.ArrowException, OSError):
        return not sum(batch.num_rows for batch in pq.ParquetFile(io.BytesIO(data)).iter_batches())
    return False


def test_a_restore_from_a_damaged_catalog_makes_nothing_of_it_and_says_so(tmp_path):
    """Arrow ends without an error where it meets the damaged header of a page."""
    make_file(tmp_path / "app.db")
    assert call("export", "app.db", "--to", "bundle", cwd=tmp_path).code == 0
    catalog = tmp_path / "bundle/data/catalog.parquet"
    whole = catalog.read_bytes()
    catalog.write_bytes(next(filter(_reads_as_empty, _with_one_damaged_byte(whole))))
    for words in (("ls", "bundle"), ("restore", "bundle", "new.db")):
        ended = call(*words, cwd=tmp_path)
        assert (ended.code, "data/catalog.parquet" in ended.err) == (6, True), ended


def test_a_location_where_a_command_of_a_group_belongs_is_not_taken_for_a_misspelt_one(tmp_path):
    (tmp_path / "bundle").mkdir()
    ended = call("hold", "bundle", cwd=tmp_path)
    assert (ended.code, "It is one of" in ended.err, "undo'?" in ended.err) == (2, True, False), ended
    assert "Did you mean 'status'?" in call("hold", "statsu", cwd=tmp_path).err


def test_a_public_key_is_no_list_of_signers_and_the_command_that_makes_one_is_named(tmp_path):
    assert call("keys", "init", "ops.key", cwd=tmp_path).code == 0
    make_file(tmp_path / "app.db")
    assert call("export", "app.db", "--to", "bundle", cwd=tmp_path).code == 0
    ended = call("verify", "bundle", "--signers", "ops.key.pub", cwd=tmp_path)
    assert (ended.code, "moveout keys show ops.key.pub > allowed_signers" in ended.err) == (2, True), ended


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("export", "postgersql://me@host/shop", "--to", "b"), "→ did you mean postgresql://?"),
        (("export", "gone://me@host/shop", "--to", "b"), "→ give a URL that begins with"),
        (("plan", "-c", "."), ". is a directory, and no case file"),
        (("plan", "postgresql://me@host/shop?sslmod=require"), "has an option 'sslmod', which"),
        (("plan", "postgresql://me@host/shop?sslmod=require"), "→ did you mean 'sslmode'?"),
        (("version",), "moveout --version prints it"),
        (("prove", "b", "shop.orders", "--row", "id=3"), "/b --table shop.orders --row id=3\n"),
        (("completion",), "moveout --install-completion bash, zsh or fish"),
        (("plan", "postgresql://me@host/shop?xyzzy=1"), "→ correct it, or take it out of the URL"),
        (("export", "gone.db", "--to", "b"), "→ check the path\n"),
    ],
)
def test_the_step_after_a_mistake_is_about_what_was_typed(tmp_path, words, said):
    ended = call(*words, cwd=tmp_path)
    assert said in ended.err, ended


def test_doctor_offers_no_script_where_there_is_advice_only(tmp_path):
    gone = call("doctor", f"notes=sqlite://{tmp_path}/gone.db")
    assert ("→ check the path" in gone.out, "--fixes" in gone.out) == (True, False), gone


def test_an_undo_file_that_is_gone_is_not_taken_for_a_location(tmp_path):
    ended = call("hold", "status", tmp_path / "shop-hold.json")
    assert (ended.code, "there is no undo file" in ended.err) == (2, True), ended


def test_a_sync_to_a_bucket_that_is_missing_names_the_option_that_makes_it(minio):
    boto_client(minio.profile).create_bucket(Bucket="there")
    ended = call("sync", f"a=s3://there?profile={minio.profile}", f"b=s3://not-there?profile={minio.profile}")
    assert (ended.code, "add --create" in ended.err) == (7, True), ended


def test_what_lacks_in_a_case_stops_no_clean_and_is_named_by_a_transfer(tmp_path):
    make_file(tmp_path / "app.db")
    case, source = tmp_path / "moveout.toml", f"sqlite://{tmp_path}"
    case.write_text(
        f'source = [{{ name = "app", url = "{source}/app.db" }}]\nbundle = {{ location = "bundle" }}\n'
        f'destination = [{{ from = "{source}", to = "" }}]\n'
    )
    assert call("export", "-c", case).code == 0
    for words in ((), ("--changes",)):
        cleaned = call("clean", "-c", case, "--yes", *words)
        assert cleaned.code == 0, cleaned
    moved = call("transfer", "-c", case)
    assert (moved.code, "moveout.toml has no [transfer]" in moved.err) == (2, True), moved


def test_clean_looks_at_all_locations_of_a_case(tmp_path):
    case, places = tmp_path / "moveout.toml", [tmp_path / "bundle", tmp_path / "copy"]
    case.write_text(f'[bundle]\nlocation = "{places[0]}"\n[transfer]\nlocation = "{places[1]}"\n')
    for place in places:
        store = open_location(str(place))
        store.put("data/app/1", b"x")
        (place / "changes" / "app").mkdir(parents=True)
    seen = call("clean", "-c", case, "--json", "--dry-run").json["result"]
    assert sorted(one["location"] for one in seen["leftovers"]) == [f"file://{place}" for place in places]
    assert call("clean", "-c", case, "--yes").code == 0
    assert not any((place / "changes").exists() for place in places)


def test_a_location_of_a_case_that_is_gone_does_not_keep_clean_from_the_other(minio, tmp_path):
    """Where the bundle was written goes down with the old host."""
    case, copy = tmp_path / "moveout.toml", tmp_path / "copy"
    gone = f"s3://bucket-that-is-gone?profile={minio.profile}"
    case.write_text(f'[bundle]\nlocation = "{gone}"\n[transfer]\nlocation = "{copy}"\n')
    open_location(str(copy)).put("data/app/1", b"x")
    (copy / "changes" / "app").mkdir(parents=True)
    ended = call("clean", "-c", case, "--yes")
    assert (ended.code, "not looked at" in ended.err) == (3, True), ended
    assert "1 leftover removed" in ended.out
    assert not (copy / "changes").exists()
    assert call("clean", gone, "--yes").code == 7


def test_clean_looks_at_the_bundle_of_a_case_that_has_no_other_location(tmp_path):
    (tmp_path / "moveout.toml").write_text(f'[bundle]\nlocation = "{tmp_path}/bundle"\n')
    ended = call("clean", "-c", tmp_path / "moveout.toml")
    assert (ended.code, f"{tmp_path}/bundle" in ended.out) == (0, True), ended


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hold", "place", "b"], ["--until T ", "--reason TEXT "]),
        (["acknowledge", "b"], ["RECEIPT  The receipt"]),
        (["hold", "b"], ["one of source, undo, place", "moveout hold COMMAND"]),
        (["transfer", "b", "--to", "s3://c?profile=d"], ["moveout transfer b 's3://c?profile=d'"]),
        (["transfer", "b c"], ["moveout transfer 'b c' LOCATION"]),
        (["run", "m.toml", "--create"], ["moveout run -c m.toml --create"]),
        (["run", "postgresql://h/d"], ["moveout discover URL … --to moveout.toml"]),
    ],
)
def test_a_command_line_that_lacks_something_is_answered_with_all_of_it(words, told):
    ended = call(*words)
    assert (ended.code, [part for part in told if part not in ended.err]) == (2, []), ended.err


def test_what_ended_a_source_is_said_once(tmp_path):
    make_file(tmp_path / "here.db")
    ended = call("export", "here.db", "gone.db", "--to", "bundle", cwd=tmp_path)
    assert (ended.code, ended.out.count("there is no file")) == (3, 1), ended.out
    begun = call("restore", "nowhere", "new.db", cwd=tmp_path)
    assert (begun.code, "there is nothing at" in begun.err) == (7, True), begun.err


def end_input(terminal):
    terminal.type("\x04")


def interrupt(terminal):
    """Press Ctrl-C; again after a while, for one that comes just before the read interrupts nothing."""
    while terminal.process.poll() is None:
        terminal.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            terminal.process.wait(60)


@pytest.mark.parametrize("leave", [end_input, interrupt])
def test_a_question_may_be_left(tmp_path, leave):
    terminal = Terminal("init", tmp_path / "m.toml")
    terminal.wait_for("to fill in:")
    leave(terminal)
    assert terminal.end() == 130
    assert "stopped\r\n→ run the same command again" in terminal.text
    assert "Traceback" not in terminal.text


def test_a_source_of_a_bundle_keeps_its_name_however_it_is_typed_later(tmp_path):
    make_file(tmp_path / "app.db")
    make_file(tmp_path / "other.db")
    url, bundle = f"sqlite://{tmp_path}/app.db", tmp_path / "bundle"
    assert call("export", f"shop={url}", "--to", bundle).code == 0
    for word, name in ((url, "app"), (tmp_path / "app.db", "app"), (f"new={url}", "new")):
        ended = call("export", word, "--to", bundle)
        assert (
            ended.code,
            f"{name} is the source shop of this bundle, and keeps that name" in ended.err,
        ) == (
            0,
            True,
        ), ended.err
    ended = call("export", f"new=sqlite://{tmp_path}/other.db", "--to", bundle)
    assert (ended.code, "holds the bundle of shop=" in " ".join(ended.err.split())) == (2, True)
    ended = call("export", f"shop=sqlite://{tmp_path}/other.db", f"new={url}", "--to", bundle)
    assert (ended.code, "holds the bundle of shop=" in " ".join(ended.err.split())) == (2, True)

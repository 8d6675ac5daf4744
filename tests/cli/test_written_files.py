"""What commands write for people and for the other side: whole, or not at all; and never asked for too late. What they
print may be lost, and costs nothing else.
"""

import os
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest

from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.local.whole_file import replace_file
from migrate.storage.registry import open_location
from tests.cli.conftest import MOVEOUT, call
from tests.export.sources import Numbers
from tests.tools.disks import resize, tiny_disk

__all__ = ["tiny_disk"]


@pytest.fixture
def bundle(tmp_path):
    """A sealed bundle and a key: (directory, file)."""
    export([Numbers(count=3)], open_location(str(tmp_path / "bundle")), workers=1, progress=Silent())
    assert call("keys", "init", tmp_path / "key", "--name", "me").code == 0
    return tmp_path / "bundle", tmp_path / "key"


def test_a_full_disk_costs_nothing_that_stood_there_and_leaves_nothing_half(bundle, tiny_disk):
    location, key = bundle
    page, mail = tiny_disk / "page.html", tiny_disk / "mail"
    assert call("report", location, "--out", page).code == 0
    mail.mkdir()
    before = page.read_bytes()
    with suppress(OSError), (tiny_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    for words in (
        ("report", location, "--out", page),
        ("receive", location, "--key", key, "--to", mail),
        ("keys", "init", tiny_disk / "other"),
        ("receive", location, "--key", key, "--page", tiny_disk / "receipt.html"),
    ):
        full = call(*words)
        assert (full.code, "No space left on device" in full.err) == (8, True), full.err
    assert page.read_bytes() == before
    assert {path.name for path in tiny_disk.rglob("*")} == {"page.html", "mail", "filler"}
    resize(tiny_disk, "8m")
    assert call("keys", "init", tiny_disk / "other").code == 0


@pytest.mark.parametrize("name", ["there.html", "no/such/page.html"])
def test_a_page_that_cannot_be_made_is_refused_before_anything_is_done(bundle, tmp_path, name):
    location, key = bundle
    (tmp_path / "there.html").touch()
    words = ("--yes", "--override", "a test", "--page", tmp_path / name)
    refused = call("erase", location, "--key", key, *words)
    assert (refused.code, "name another file" in " ".join(refused.err.split())) == (2, True), refused.err
    assert (location / "tagmanifest-sha256.txt").exists()


def test_what_is_no_file_is_written_to_and_stays_what_it_is(bundle, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert call("report", bundle[0], "--out", tmp_path / "pipe").code == 0
    assert (b"<html" in os.read(reader, 2**20), (tmp_path / "pipe").is_fifo()) == (True, True)
    os.close(reader)


@pytest.mark.parametrize(
    ("streams", "code"),
    [
        ("2> /dev/full", 0),
        pytest.param("> /dev/full", 8, marks=pytest.mark.torture),
        ("--json > /dev/full", 8),
        ("<&- >&- 2>&-", 0),
    ],
)
def test_what_is_printed_to_a_full_disk_or_nowhere_ends_no_run(tmp_path, streams, code):
    """A log that fills its disk ended an export with its first line; streams that were closed ended it, too."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    line = f"{MOVEOUT} export a=a.db --to bundle {streams}"
    ended = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr
    assert ("the result cannot be written: No space left on device" in ended.stderr) == bool(code)
    assert call("verify", tmp_path / "bundle").code == 0


def test_a_log_that_nobody_reads_any_more_ends_no_run(tmp_path):
    """As where ``tee`` or a service of logs has died."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    reader, writer = os.pipe()
    os.close(reader)
    argv = [MOVEOUT, "export", "a=a.db", "--to", "bundle"]
    ended = subprocess.run(
        argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=writer, check=False, timeout=300
    )
    os.close(writer)
    assert (ended.returncode, b"Sealed, complete" in ended.stdout) == (0, True), ended


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.torture)])
def test_what_an_old_locale_cannot_show_is_an_escape_and_data_stay_utf_8(tmp_path, encoding):
    """A command ended with a traceback at its first arrow, after its work was done."""
    bundle = tmp_path / "bundle"
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE \"ж\" AS SELECT 'é→' AS x")
    assert call("export", f"a={tmp_path}/a.db", "--to", bundle).code == 0

    def run(*words):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        return subprocess.run(
            [MOVEOUT, *words], capture_output=True, check=False, env=environment, timeout=300
        )

    listed = run("ls", bundle)
    assert (listed.returncode, b"main.\\u0436" in listed.stdout) == (0, True), listed
    assert "main.ж" in run("ls", bundle, "--json").stdout.decode()
    rows = run("get", bundle, "main.ж")
    assert "é→" in rows.stdout.decode(), rows
    assert run("export", "--help").returncode == 0
    shown, failed = run("discover", tmp_path / "a.db"), run("ls", tmp_path / "none")
    assert (b"\n-> the same command with --to" in shown.stdout, shown.returncode) == (True, 0), shown
    assert (b"\n-> check the location" in failed.stderr, failed.returncode) == (True, 7), failed


def test_a_page_that_is_written_again_keeps_its_permissions(bundle, tmp_path):
    page = tmp_path / "page.html"
    page.touch()
    page.chmod(0o640)
    assert call("report", bundle[0], "--out", page).code == 0
    assert (page.stat().st_mode & 0o777, page.stat().st_size > 0) == (0o640, True)


def test_what_a_killed_writer_has_left_is_replaced_by_the_next(bundle, tmp_path):
    """Each kill left another file, for ever."""
    page = tmp_path / "page.html"
    words = [MOVEOUT, "report", bundle[0], "--out", page]
    environment = {**os.environ, "MOVEOUT_CRASH_AT": "report.page.before"}
    for _ in range(2):
        ended = subprocess.run(words, capture_output=True, check=False, env=environment, timeout=300)
        assert ended.returncode == -9, ended.stderr
        assert [path.name for path in tmp_path.glob(".page*")] == [".page.html.new"]
    (tmp_path / ".page.html.new").chmod(0o600)
    assert call("report", bundle[0], "--out", page).code == 0
    assert list(tmp_path.glob(".page*")) == []
    umask = os.umask(0)
    os.umask(umask)
    assert page.stat().st_mode & 0o777 == 0o666 & ~umask


def test_two_who_write_one_file_at_once_write_it_whole_both(tmp_path):
    """Each waits for the other, and none removes what the other writes."""
    path, letters = tmp_path / "file", [b"a", b"b", b"c", b"d"]

    def write(letter):
        for _ in range(50):
            replace_file(path, letter * 100_000, crash_point="test.file")
            assert set(path.read_bytes()) <= {ord(letter) for letter in letters}
            assert len(set(path.read_bytes())) == 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, letters))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]

"""What a power cut may take: the bytes of a file that were never written to the disk, and names of which the directory
was not. ``strace`` shows what a command has made durable when it writes what counts on it.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import MOVEOUT, call

CALLS = "openat,fsync,fdatasync,rename,link,unlink,mkdir,ftruncate,pwrite64,write"
_FILE = re.compile(r"^\w+\(\d+<(?P<path>[^>]*)>")
_OWN = ("/_work/.", "/_work/lease.json", "/_work/progress-")
"""What is needed only while a command works."""
RECORDS = re.compile(r"/units/|/final\.json$|/tagmanifest-sha256\.txt$|/custody\.jsonl$")


class Disk:
    """What of a folder is not on the disk yet: files with bytes that are not, and names."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.bytes: set[str] = set()
        self.names: set[str] = set()

    def pending(self) -> list[str]:
        """Return what a power cut would take of what is not the store's own."""
        return sorted(
            path
            for path in self.bytes | self.names
            if path.startswith(self.folder) and not any(own in path for own in _OWN)
        )

    def happened(self, call_: str) -> None:
        """Take note of a call that succeeded."""
        name, paths = call_.partition("(")[0], re.findall(r'"(/[^"]*)"', call_)
        file = _FILE.match(call_)
        if name in {"write", "pwrite64", "ftruncate"} and file:
            self.bytes.add(file["path"])
        elif name in {"fsync", "fdatasync"} and file:
            self.bytes.discard(file["path"])
            self.names = {path for path in self.names if str(Path(path).parent) != file["path"]}
        elif (name == "openat" and "O_CREAT" in call_ and paths) or (name == "mkdir" and paths):
            self.names.add(paths[0])
        elif name in {"rename", "link"} and len(paths) == 2:
            self.names.add(paths[1])
            if paths[0] in self.bytes:
                self.bytes.add(paths[1])
            self._forget(paths[0])
        elif name == "unlink" and paths:
            self._forget(paths[0])

    def _forget(self, path: str) -> None:
        self.bytes.discard(path)
        self.names.discard(path)


def calls_of(words: list[object], log: Path) -> Iterator[str]:
    """Run moveout, and yield its calls in the order in which they ended."""
    argv = ["strace", "-f", "-y", "-qq", "-o", log, "-e", f"trace={CALLS}", MOVEOUT, *words]
    subprocess.run(list(map(str, argv)), check=True, capture_output=True, timeout=300)
    begun: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        thread, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>")
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>", text):
            text = begun.pop(thread, "") + text[resumed.end() :]
        if " = -1 " not in text:
            yield text


@pytest.fixture
def source(tmp_path) -> Path:
    """A file with a small table, and one that leaves as an upload in parts."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not on this machine: what is on the disk when is not tried")
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE small AS SELECT 1 AS x")
        connection.execute("CREATE TABLE large (x)")
        rows = ((os.urandom(60_000),) for _ in range(300))
        connection.executemany("INSERT INTO large VALUES (?)", rows)
    return tmp_path / "a.db"


@pytest.mark.timeout(600)
def test_what_a_record_counts_on_is_on_the_disk_before_it(source, tmp_path):
    """The bytes and the name of every file of the bundle, before what calls it finished; and all of it at the end."""
    key, bundle, copy = tmp_path / "key", tmp_path / "deep" / "bundle", tmp_path / "copy"
    restored = tmp_path / "new" / "deep" / "a.db"
    assert call("keys", "init", key, "--name", "me").code == 0
    records = 0
    for folder, words in (
        (bundle, ["export", f"a={source}", "--to", bundle, "--key", key, "--workers", "1"]),
        (copy, ["transfer", bundle, copy, "--key", key]),
        (tmp_path / "new", ["restore", copy, f"a={restored}", "--create"]),
        (tmp_path / "mail", ["receive", copy, "--key", key, "--to", tmp_path / "mail"]),
    ):
        disk = Disk(folder)
        for done in calls_of(words, tmp_path / "calls"):
            goal = re.findall(r'"(/[^"]*)"', done)[-1:] if done.startswith(("rename", "link")) else []
            if goal and goal[0].startswith(str(folder)) and RECORDS.search(goal[0]):
                records += 1
                assert disk.pending() == [], f"{goal[0]} counts on them"
            disk.happened(done)
        assert [path for path in disk.pending() if not path.endswith("-journal")] == [], words
    assert records >= 6

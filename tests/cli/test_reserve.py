"""A run with a reserve: the bundle is sealed and sent before the deadline, and the rest follows."""

import os
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import run

HEAD = """
[case]
name = "reserve"
deadline = {deadline}
reserve = "3560s"
[bundle]
location = "bundle"
[transfer]
location = "moved"
[limits]
bwlimit = "150K"
workers = 1
"""
SOURCE = """
[[source]]
name = "{name}"
url = "sqlite://{folder}/{name}.db"
priority = {priority}
"""
BLOBS = 36


@pytest.mark.torture
def test_what_is_ready_before_the_deadline_is_sent_and_the_rest_follows(tmp_path):
    text = HEAD.format(deadline=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    for name, priority, blobs in (("c", 4, BLOBS), ("b", 3, BLOBS), ("a", 2, BLOBS), ("small", 1, 1)):
        with sqlite3.connect(tmp_path / f"{name}.db") as made:
            made.execute("CREATE TABLE t (i INTEGER PRIMARY KEY, x BLOB)")
            made.executemany("INSERT INTO t (x) VALUES (?)", [(os.urandom(2**16),) for _ in range(blobs)])
        made.close()
        text += SOURCE.format(name=name, folder=tmp_path, priority=priority)
    case = tmp_path / "moveout.toml"
    case.write_text(text)
    done = run("run", "-c", case, "--json")
    assert done.code == 0, done.err
    steps = [step for step in done.json["result"]["steps"] if step["step"] not in {"doctor", "plan"}]
    assert [step["step"] for step in steps] == ["export", "transfer", "export", "transfer", "verify"]
    assert [step["exit_code"] for step in steps] == [3, 3, 0, 0, 0]
    sealed = {source["name"]: source["complete"] for source in steps[0]["result"]["sources"]}
    assert list(sealed) == ["small", "a", "b", "c"]
    assert (sealed["small"], sealed["c"]) == (True, False)

"""A run with a reserve: the bundle is sealed and sent before the deadline, and the rest follows."""

import os
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import run

CASE = """
[case]
name = "reserve"
deadline = {deadline}
reserve = "3560s"
[[source]]
name = "big"
url = "sqlite://{folder}/big.db"
[[source]]
name = "small"
url = "sqlite://{folder}/small.db"
priority = 1
[bundle]
location = "bundle"
[transfer]
location = "moved"
[limits]
bwlimit = "200K"
workers = 1
"""


@pytest.mark.torture
def test_what_is_ready_before_the_deadline_is_sent_and_the_rest_follows(tmp_path):
    for name, blobs in (("small", 4), ("big", 240)):
        with sqlite3.connect(tmp_path / f"{name}.db") as made:
            made.execute("CREATE TABLE t (i INTEGER PRIMARY KEY, x BLOB)")
            made.executemany("INSERT INTO t (x) VALUES (?)", [(os.urandom(2**16),) for _ in range(blobs)])
        made.close()
    deadline = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    case = tmp_path / "moveout.toml"
    case.write_text(CASE.format(deadline=deadline, folder=tmp_path))
    done = run("run", "-c", case, "--json")
    assert done.code == 0, done.err
    steps = [(step["step"], step["exit_code"]) for step in done.json["result"]["steps"]]
    names = [name for name, _ in steps if name not in {"doctor", "plan"}]
    assert names == ["export", "transfer", "export", "transfer", "verify"]
    assert dict(reversed(steps))["export"] == 3  # the first one
    first = next(step["result"] for step in done.json["result"]["steps"] if step["step"] == "export")
    items = {source["name"]: source["items"] for source in first["sources"]}
    assert items["small"] == 4
    assert 0 < items["big"] < 240

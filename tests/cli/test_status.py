"""``moveout status`` from another process: the numbers of the terminal, also after a kill, and during restore."""

import os
import random
import re
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing

import pytest

from migrate.bundle.layout import progress_file
from migrate.progress.progress_file import encode
from migrate.progress.state import ProgressState
from migrate.runtime.process_identity import ProcessName
from migrate.storage.registry import open_location
from tests.cli.conftest import call, make_file, result
from tests.tools.terminal import Terminal

TABLES, ROWS = 10, 8_000
HEAD_SHARE = re.compile(r"stage \d of \d: [^%\n]*?(\d+)%")
"""What the first line of the view says of the whole run."""


def make_large_file(path):
    """Write a file of ten tables, each a unit of a megabyte or so."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in range(TABLES):
            connection.execute(f"CREATE TABLE t{table} (id INTEGER PRIMARY KEY, body TEXT)")
            connection.execute(
                "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
                f" INSERT INTO t{table} (body) SELECT hex(randomblob(64)) FROM numbers",
                (ROWS,),
            )
    return f"app=sqlite://{path}"


def reports(location):
    return result("status", location)["locations"][0]["reports"]


def compare(terminal, location, *, until, waits):
    """Compare the two again and again until the terminal shows a share; return how often that was."""
    count = 0
    while terminal.process.poll() is None and max(terminal.shares(1.0), default=0) < until:
        time.sleep(next(waits))
        asked = time.monotonic()
        seen = reports(location)
        time.sleep(0.5)
        # Both are renewed several times a second, not in the same moment; the answer may take long on a busy machine.
        shown = terminal.shares_since(asked - 1.0)
        if not shown or not seen or not seen[0]["alive"]:
            continue
        # The last per cent on the terminal is the task's; of a restore's tasks each is a part.
        share = 100 * (seen[0]["tasks"][-1]["fraction"] or -1)
        if share < 0:  # a task without totals, such as the seal
            continue
        assert min(shown) - 2 <= share <= max(shown) + 2, terminal.text[-500:]
        for task in seen[0]["tasks"]:
            assert task["items"] <= task["total_items"] or not task["total_items"]
            assert task["bytes_rate"] < 50_000_000
        count += 1
    return count


def move(tmp_path, waits, *, least):
    """Export, kill, export again, restore; compare the terminal with the status all the time."""
    source, location = make_large_file(tmp_path / "app.db"), tmp_path / "bundle"
    export = ("export", source, "--to", location, "--bwlimit", "1M", "--workers", "2")
    terminal = Terminal(*export)
    count = compare(terminal, location, until=40, waits=waits)
    terminal.process.send_signal(signal.SIGKILL)
    terminal.end()
    (report,) = reports(location)
    assert (report["alive"], report["command"]) == (False, "export")
    status = result("status", location)["locations"][0]["export"]
    assert status["state"] == "stopped"
    (app,) = status["sources"]
    assert 0 < app["done"]["items"] <= app["planned"]["items"]
    output = call("status", location).out
    assert re.search(r"died at \d+%: last sign of life", output)
    terminal = Terminal(*export)
    count += compare(terminal, location, until=101, waits=waits)
    assert terminal.end() == 0
    assert reports(location) == []
    assert not (location / "_work").exists()
    terminal = Terminal("restore", location, f"app=sqlite://{tmp_path / 'new.db'}", "--bwlimit", "1M")
    during = compare(terminal, location, until=101, waits=waits)
    assert terminal.end() == 0
    assert not (location / "_work").exists()
    assert min(count, during) >= least


@pytest.mark.torture
def test_status_agrees_with_the_terminal_also_after_a_kill_and_during_restore(tmp_path):
    move(tmp_path, iter(lambda: 0.5, None), least=3)


def test_status_says_what_is_up_on_the_new_host(tmp_path):
    case, bundle = tmp_path / "moveout.toml", tmp_path / "bundle"
    case.write_text(CASE + "".join(MOVE.format(name=name, folder=tmp_path) for name in ("one", "two")))
    make_file(tmp_path / "one.db")
    assert call("run", "-c", case).code == 3
    state = call("status", case)
    assert state.code == 3
    assert "on the new host: 1 of 2 sources up; not: two" in state.out
    assert "→ once the reasons are gone, run the same export again" in state.out
    assert re.search(r"one +up, compared .* UTC → sqlite://.*/new-one\.db", state.out)
    assert re.search(
        r"two +.*: not restored: the bundle has nothing of it: two .*\n +→ export it again", state.out
    )
    make_file(tmp_path / "two.db")
    assert call("export", "-c", case).code == 0
    state = call("status", case)
    assert "on the new host: 0 of 2 sources up; not: one, two" in state.out
    assert re.search(r"one +.* the bundle has grown since .*\n +→ restore it again", state.out)
    assert call("run", "-c", case).code == 0
    state = call("status", "-c", case)
    assert (state.code, "on the new host: both sources up" in state.out) == (0, True)
    assert call("restore", "-c", case, f"one=sqlite://{tmp_path}/staging.db").code == 0
    destinations = result("status", case)["destinations"]
    assert [(entry["source"], entry["up"]) for entry in destinations] == [("one", True), ("two", True)]
    places = [entry["destination"].rpartition("/")[2] for entry in result("status", bundle)["destinations"]]
    assert places == ["new-one.db", "staging.db", "new-two.db"]
    assert "on the new host: 1 of 2 sources up" in with_one_restored(tmp_path, bundle)
    assert call("verify", bundle).code == 0
    assert call("transfer", bundle, tmp_path / "copy").code == 0
    assert not (tmp_path / "copy/restored").exists()


def test_a_source_without_destination_is_not_waited_for(tmp_path):
    case = tmp_path / "moveout.toml"
    case.write_text(CASE + "".join(MOVE.format(name=name, folder=tmp_path) for name in ("one", "two")))
    case.write_text(case.read_text() + f'[[source]]\nname = "kept"\nurl = "sqlite://{tmp_path}/kept.db"\n')
    for name in ("one", "two", "kept"):
        make_file(tmp_path / f"{name}.db")
    assert call("export", "-c", case).code == 0
    assert "on the new host: 0 of 2 sources up; not: one, two; no destination" in call("status", case).out
    assert call("run", "-c", case).code == 0
    state = call("status", case)
    words = "on the new host: both sources up; no destination in the case file: kept"
    assert (state.code, words in state.out) == (0, True), state


def with_one_restored(tmp_path, bundle):
    """What is said of a copy of a bundle of two sources, one of which has come up."""
    assert call("transfer", bundle, tmp_path / "other").code == 0
    assert call("restore", tmp_path / "other", f"one=sqlite://{tmp_path}/third.db").code == 0
    return call("status", tmp_path / "other/../other").out


def test_an_address_that_was_wrong_is_forgotten_when_the_source_is_up_elsewhere(tmp_path):
    make_file(tmp_path / "one.db")
    bundle = tmp_path / "bundle"
    assert call("export", f"one=sqlite://{tmp_path}/one.db", "--to", bundle).code == 0
    for folder in ("nowhere", "neither"):
        assert call("restore", bundle, f"one=sqlite://{tmp_path}/{folder}/new.db").code == 7
    state = call("status", bundle)
    assert (state.code, "on the new host: 0 of 1 source up; not: one\n" in state.out) == (3, True), state
    assert call("restore", bundle, f"one=sqlite://{tmp_path}/new.db").code == 0
    state = call("status", bundle)
    assert (state.code, "nowhere" in state.out) == (0, False), state
    assert "on the new host: 1 source up" in state.out
    with closing(sqlite3.connect(tmp_path / "new.db")) as used, used:
        used.execute("INSERT INTO t VALUES (2)")
    again = call("restore", bundle, f"one=sqlite://{tmp_path}/new.db")
    assert (again.code, "→ nothing, if the application uses it by now: it was up at 20" in again.err) == (
        2,
        True,
    ), again
    assert "on the new host: 1 source up" in call("status", bundle).out


def test_a_restore_that_touches_nothing_leaves_the_note_that_a_source_is_up(tmp_path):
    make_file(tmp_path / "one.db")
    bundle, to = tmp_path / "bundle", f"one=sqlite://{tmp_path}/new.db"
    assert call("export", f"one=sqlite://{tmp_path}/one.db", "--to", bundle).code == 0
    assert call("restore", bundle, to).code == 0
    for only, code in (("tt", 2), ("t", 0)):
        assert call("restore", bundle, to, "--only", only).code == code
        state = call("status", bundle)
        assert (state.code, "on the new host: 1 source up" in state.out) == (0, True), state


CASE = """
[case]
name = "night"
[bundle]
location = "bundle"
[limits]
bwlimit = "1M"
workers = 2
"""
MOVE = """
[[source]]
name = "{name}"
url = "sqlite://{folder}/{name}.db"
[[destination]]
source = "{name}"
url = "sqlite://{folder}/new-{name}.db"
"""


@pytest.mark.torture
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(3))
def test_status_agrees_with_a_whole_run_at_twenty_random_moments(tmp_path, seed):
    """The share of the whole, which the first line of the view shows; a kill -9 at a random moment of each stage."""
    moments = random.Random(seed)
    case, location = tmp_path / "moveout.toml", tmp_path / "bundle"
    case.write_text(CASE + "".join(MOVE.format(name=name, folder=tmp_path) for name in ("one", "two")))
    for name in ("one", "two"):
        make_large_file(tmp_path / f"{name}.db")
    seen: Counter[str] = Counter()
    kills = ["export", "restore"]
    asked_before = moments.randint(1, 3)
    while True:
        terminal = Terminal("run", "-c", case, share=HEAD_SHARE)
        last = None
        while terminal.process.poll() is None:
            time.sleep(moments.uniform(0.1, 1.0))
            asked = time.monotonic()
            reported = reports(location)
            time.sleep(0.5)
            shown = terminal.shares_since(asked - 1.0)
            if not shown or not reported or not reported[0]["alive"]:
                continue
            share, stage = 100 * reported[0]["fraction"], stage_of(reported[0])
            assert min(shown) - 2 <= share <= max(shown) + 2, (share, shown, stage, terminal.text[-500:])
            seen[stage] += 1
            asked_before -= kills[:1] == [stage]
            if kills and not asked_before:
                del kills[0]
                asked_before = moments.randint(1, 3)
                terminal.process.send_signal(signal.SIGKILL)
                last = terminal.shares(1.0)
        code = terminal.end()
        if last is None:
            break
        died = int(re.search(r"died at (\d+)%", call("status", location).out)[1])
        assert min(last) - 2 <= died <= max(last) + 2
    assert code == 0, terminal.text[-2000:]
    assert not kills
    assert sum(seen.values()) >= 20
    assert {"export", "restore"} <= set(seen)


def stage_of(report):
    return next((stage["name"] for stage in report["stages"] if stage["state"] == "running"), "")


@pytest.mark.parametrize("command", ["export", "transfer", "restore"])
def test_what_a_dead_run_left_is_not_shown_once_another_has_done_it(tmp_path, command):
    """The first of two machines went on believing that it worked there, and ended with an error after the other."""
    location, new = tmp_path / "bundle", tmp_path / "new.db"
    make_file(tmp_path / "app.db")
    assert call("export", tmp_path / "app.db", "--to", location).code == 0
    store = open_location(str(location))
    state = ProgressState(command=command, sources=["app"], ended="in use: another run")
    store.put(progress_file(command), encode(state, ProcessName("m1", "x", 1, "y")))
    shown = f"{command} on m1, process 1, ended" in call("status", location).out
    assert shown == (command == "restore")
    assert call("restore", location, f"app=sqlite://{new}").code == 0
    store.put(progress_file(command), encode(state, ProcessName("m1", "x", 1, "y")))
    os.utime(location / progress_file(command), (1, 1))
    assert "on m1" not in call("status", location).out

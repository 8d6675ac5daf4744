"""``moveout status`` from another process: the numbers of the terminal, also after a kill, and during restore."""

import fcntl
import os
import pty
import random
import re
import signal
import sqlite3
import struct
import subprocess
import termios
import threading
import time

import pytest

from tests.cli.conftest import MOVEOUT, call, result

TABLES, ROWS = 10, 8_000
SHARE = re.compile(r"(\d+)%")


def make_large_file(path):
    """Write a file of ten tables, each a unit of a megabyte or so."""
    with sqlite3.connect(path) as connection:
        for table in range(TABLES):
            connection.execute(f"CREATE TABLE t{table} (id INTEGER PRIMARY KEY, body TEXT)")
            connection.executemany(
                f"INSERT INTO t{table} (body) VALUES (?)",
                ((random.randbytes(64).hex(),) for _ in range(ROWS)),
            )
    connection.close()
    return f"app=sqlite://{path}"


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *words, columns=80):
        self.text = ""
        self._shares = []
        leader, follower = pty.openpty()
        fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [MOVEOUT, *map(str, words)],
            stdin=follower,
            stdout=subprocess.DEVNULL,
            stderr=follower,
            env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns)},
        )
        os.close(follower)
        self._leader = leader
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            while data := os.read(self._leader, 65536):
                self.text += data.decode(errors="replace")
                self._shares.extend((time.monotonic(), int(share)) for share in SHARE.findall(data.decode()))
        except OSError:
            pass

    def shares(self, seconds):
        """The per cents that it showed in the last seconds, oldest first."""
        since = time.monotonic() - seconds
        before = [share for at, share in self._shares if at <= since]
        return before[-1:] + [share for at, share in self._shares if at > since]

    def end(self):
        code = self.process.wait(timeout=240)
        self._thread.join()
        os.close(self._leader)
        return code


def reports(location):
    return result("status", location)["locations"][0]["reports"]


def compare(terminal, location, *, until, waits):
    """Compare the two again and again until the terminal shows a share; return how often that was."""
    count = 0
    while terminal.process.poll() is None and max(terminal.shares(1.0), default=0) < until:
        time.sleep(next(waits))
        seen = reports(location)
        time.sleep(0.5)
        # Both are renewed several times a second, not in the same moment.
        shown = terminal.shares(1.5)
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
    said = call("status", location).out
    assert re.search(r"died at \d+%: last sign of life", said)
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


def test_status_agrees_with_the_terminal_also_after_a_kill_and_during_restore(tmp_path):
    move(tmp_path, iter(lambda: 0.5, None), least=3)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(3))
def test_status_agrees_with_the_terminal_at_random_moments(tmp_path, seed):
    moments = random.Random(seed)
    move(tmp_path, iter(lambda: moments.uniform(0.1, 1.0), None), least=7)

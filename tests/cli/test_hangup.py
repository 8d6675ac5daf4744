"""A terminal that is closed ends a run as Ctrl-C does: the lease is given back, the next run goes on."""

import os
import pty
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest

from migrate.bundle import layout
from tests.cli.conftest import MOVEOUT
from tests.tools.waiting import eventually


@pytest.fixture(autouse=True)
def attended():
    """A program that this one starts does not ignore SIGHUP, even if this one was told to."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def slow(tmp_path):
    """An export that will take minutes, and where to."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as made, made:
        made.execute("CREATE TABLE t (x)")
        made.executemany("INSERT INTO t VALUES (?)", [(os.urandom(30),) for _ in range(20_000)])
    words = ["export", f"a=sqlite://{tmp_path}/a.db", "--to", str(tmp_path / "bundle"), "--bwlimit", "1K"]
    return [MOVEOUT, *words], tmp_path / "bundle" / layout.LEASE


def begun(argv, lease, **how):
    victim = subprocess.Popen(argv, **how)
    eventually(lambda: lease.exists() or victim.poll() is not None)
    return victim


def test_a_closed_terminal_stops_the_run_and_frees_the_location(slow):
    argv, lease = slow
    ours, theirs = pty.openpty()
    victim = begun(argv, lease, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(ours)
    victim.send_signal(signal.SIGHUP)
    assert victim.wait(timeout=120) == 130
    assert not lease.exists()


def test_nohup_is_heeded(slow):
    argv, lease = slow
    nowhere = subprocess.DEVNULL
    victim = begun(["nohup", *argv], lease, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    victim.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert victim.poll() is None
    victim.terminate()
    assert victim.wait(timeout=120) == 130

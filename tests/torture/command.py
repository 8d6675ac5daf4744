"""The command ``moveout`` as a process that can be killed, or measured."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.cost import Cost, cost_of
from tests.tools.tally import count_if_passed

MOVEOUT = Path(sys.executable).parent / "moveout"
LIMIT_BYTES = 512 * 2**20
"""So much memory is promised for any table and any number of them."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ended: its exit code (negative: the signal), what it said, how long it took."""

    code: int
    said: str
    seconds: float


def moveout(*words: object, kill_after: float | None = None) -> Ended:
    """Run ``moveout``; SIGKILL it after so many seconds where given."""
    started = time.monotonic()
    with subprocess.Popen(
        [MOVEOUT, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            count_if_passed("kills", int(process.returncode == -signal.SIGKILL))
    return Ended(process.returncode, output, time.monotonic() - started)


def must(*words: object) -> Ended:
    """Run ``moveout``, which has to succeed."""
    ended = moveout(*words)
    assert ended.code == 0, f"moveout {' '.join(map(str, words))} ended with {ended.code}:\n{ended.said}"
    return ended


def measured(*words: object) -> Cost:
    """Run ``moveout``, which has to succeed, and return what it took."""
    return cost_of([MOVEOUT, *map(str, words), "--quiet"])


@contextlib.contextmanager
def followed_by_process(environment: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[bytes]]:
    """``moveout follow`` of the case file here, which writes to ``follow.log``, until the block ends."""
    with Path("follow.log").open("wb") as log:
        process = subprocess.Popen(
            [MOVEOUT, "follow", "-c", "moveout.toml"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def killed_when(reached: Callable[[], bool], *words: object) -> None:
    """Run ``moveout``, and SIGKILL it once ``reached()`` holds; it must not have ended before."""
    with subprocess.Popen(
        [MOVEOUT, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while process.poll() is None and not reached():
            time.sleep(0.05)
        assert process.poll() is None, f"moveout {' '.join(map(str, words))} ended with {process.returncode}"
        os.killpg(process.pid, signal.SIGKILL)
        count_if_passed("kills")

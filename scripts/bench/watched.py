"""A command of moveout watched while it runs: its memory as time goes on, and what servers counted meanwhile; killed in
the middle where that is wanted.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from scripts import metrics
from scripts.servers import S3Server

MB = 1_000_000
_TICK_SECONDS = 0.2
_FIFTHS = 5
_RSS = re.compile(r"^Vm(HWM|RSS):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """One run. ``rss`` is the largest resident memory in each fifth of its time, in bytes; ``peak_bytes`` what the
    system counted, but for the last fifth of a second. ``requests`` and ``received_bytes`` are what each server, by its
    profile, has counted meanwhile.
    """

    verb: str
    killed: bool
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    rss: Sequence[int]
    requests: dict[str, Counter[str]]
    received_bytes: dict[str, int]

    def __str__(self) -> str:
        request_counts = {name: sum(counted.values()) for name, counted in self.requests.items()}
        requests_text = ", ".join(
            f"{name} {request_counts[name]} requests {self.received_bytes[name] / MB:.0f} MB received"
            for name in request_counts
        )
        fifths = " ".join(f"{rss_bytes / MB:.0f}" for rss_bytes in self.rss)
        end = "killed" if self.killed else "done"
        return (
            f"{self.verb:8} {end:6} {self.seconds:7.1f} s, processor {self.cpu_seconds:6.1f} s,"
            f" peak {self.peak_bytes / MB:.0f} MB (by fifths {fifths}); {requests_text}"
        )


def watch(
    command: Sequence[str | Path], servers: Sequence[S3Server], *, kill: Callable[[], bool] | None = None
) -> WatchedRun:
    """Run a command, whose second word is its verb; SIGKILL it once ``kill()`` holds. Ends the program where it fails,
    or ends before it was killed.
    """
    before = [_counted(server) for server in servers]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    samples, peak, killed = list[int](), 0, False
    while (exit_status := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        peak, now = _resident(process.pid) or (peak, 0)
        samples.append(now)
        if kill is not None and not killed and kill():
            process.kill()
            killed = True
        time.sleep(_TICK_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(exit_status[1])
    if killed != (kill is not None) or (not killed and process.returncode):
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    after = [_counted(server) for server in servers]
    pairs = list(zip(servers, before, after, strict=True))
    used = exit_status[2]
    return WatchedRun(
        verb=str(command[1]),
        killed=killed,
        seconds=time.monotonic() - started,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_bytes=peak,
        rss=fifths(samples),
        requests={server.profile: new[0] - old[0] for server, old, new in pairs},
        received_bytes={server.profile: new[1] - old[1] for server, old, new in pairs},
    )


def fifths(samples: Sequence[int]) -> list[int]:
    """Return the largest sample of each fifth."""
    cuts = [len(samples) * number // _FIFTHS for number in range(_FIFTHS + 1)]
    return [max(samples[start:end], default=0) for start, end in pairwise(cuts)]


def _counted(server: S3Server) -> tuple[Counter[str], int]:
    return metrics.requests(server.endpoint), metrics.received_bytes(server.endpoint)


def _resident(pid: int) -> tuple[int, int] | None:
    """Return the largest resident memory so far, and that of now. (``ru_maxrss`` begins with that of who forks.)"""
    try:
        fields = dict(_RSS.findall(Path(f"/proc/{pid}/status").read_text()))
        return int(fields["HWM"]) * 1024, int(fields["RSS"]) * 1024
    except (OSError, KeyError):
        return None

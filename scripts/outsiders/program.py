"""moveout's command line, run as users run it, and killed as machines kill it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from scripts.servers import Servers, environment_for

MOVEOUT = Path(sys.executable).with_name("moveout")
COMPLETE, INCOMPLETE = 0, 3
HANGS_AFTER_SECONDS = 1800.0
_TRIES_PER_KILL = 5
"""A kill that misses its run so often is given up."""
_LASTING = ("gaps", "reasons", "left_out", "findings", "losses")
"""What a report says of a source or a destination that a repetition must say again."""
_PARTS = ("sources", "restored")
"""The lists of a report's entries for sources."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended. ``report`` is the result that it printed with --json."""

    words: Sequence[str]
    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """True where it did its work: completely, or with named gaps and losses."""
        return self.exit_code in {COMPLETE, INCOMPLETE} and not self.traceback

    @property
    def traceback(self) -> bool:
        """True where it ended by an error that nobody caught."""
        return "Traceback (most recent call last)" in self.stderr + self.stdout

    @property
    def essence(self) -> str:
        """Return what it reports, without what differs from run to run: times, counts of what was done before, and the
        order, in which what was tried again comes first.
        """
        essence = [
            {name: _in_order(entry[name]) for name in _LASTING if entry.get(name)}
            for entry in _entries(self.report)
        ]
        return f"exit code {self.exit_code}, {essence}"

    def of(self, source: str) -> Outcome:
        """Return it with what it reports of one source only."""
        report = {
            part: [entry for entry in self.report.get(part, []) if source in _names(entry)] for part in _PARTS
        }
        return replace(self, report=report)

    def failure_of(self, source: str) -> str:
        """Return in one line how it failed for one source; empty where it moved that."""
        entries = _entries(self.of(source).report)
        lines = [line for entry in entries for line in entry.get("findings", [])]
        lines += [str(entry) for entry in self.report.get("failed", []) if source in _names(entry)]
        if lines:
            return f"moveout {self.words[0]}: {' | '.join(lines)[:1500]}"
        if entries and not self.traceback:
            return ""
        return self.failure or f"moveout {self.words[0]} does not say what became of {source}"

    @property
    def failure(self) -> str:
        """Return in one line how it failed; empty where it finished."""
        if self.finished:
            return ""
        result_text = "traceback" if self.traceback else f"exit code {self.exit_code}"
        findings = [
            line
            for report_entry in self.report.get("restored", [])
            for line in report_entry.get("findings", [])
        ]
        lines = (
            findings
            or [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()][-6:]
        )
        return f"moveout {self.words[0]}: {result_text}: {' | '.join(lines)[:1500]}"


@dataclass(frozen=True, slots=True)
class Killed:
    """A command to kill. ``within_seconds`` is how long it takes undisturbed; ``begin_anew`` undoes what it did."""

    words: Sequence[str]
    within_seconds: float
    begin_anew: Callable[[], None]


@dataclass(frozen=True, slots=True)
class KilledOutcomes:
    """How the runs ended that no kill met, the last one after all kills; and how many kills met a run."""

    outcomes: Sequence[Outcome]
    met: int

    @property
    def last(self) -> Outcome:
        """Return how the last run ended."""
        return self.outcomes[-1]


@dataclass(frozen=True, slots=True)
class Program:
    """moveout, started in a directory with the variables that reach the servers."""

    directory: Path
    environment: Mapping[str, str]

    @classmethod
    def for_servers(cls, servers: Servers, directory: Path, **variables: str) -> Program:
        """Return the program in a directory, with more variables than the servers'."""
        directory.mkdir(parents=True, exist_ok=True)
        return cls(directory, environment_for(servers) | variables)

    def run(self, *arguments: str) -> Outcome:
        """Run a command with --json to its end."""
        outcome = self._run_until(arguments, HANGS_AFTER_SECONDS)
        return outcome or Outcome(arguments, -1, "", "it hangs", HANGS_AFTER_SECONDS)

    def start(self, *arguments: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a command, and do not wait for it."""
        return subprocess.Popen(
            self._argv(arguments),
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def run_killed(self, command: Killed, *, kills: int, chance: random.Random) -> KilledOutcomes:
        """Run a command that is killed at random moments, then run it to its end. A run that ends before its moment is
        a missed kill: the work begins anew, and another run is killed instead.
        """
        outcomes: list[Outcome] = []
        met = 0
        for _ in range(kills * _TRIES_PER_KILL):
            if met == kills:
                break
            moment = chance.uniform(0, command.within_seconds)
            outcome = self._run_until(command.words, moment)
            if outcome is None:
                met += 1
            else:
                outcomes.append(outcome)
                command.begin_anew()
        outcomes.append(self.run(*command.words))
        return KilledOutcomes(outcomes, met)

    def _run_until(self, arguments: Sequence[str], seconds: float) -> Outcome | None:
        """Run a command with --json, and return how it ended; kill its processes after so many seconds."""
        started = time.monotonic()
        child = subprocess.Popen(
            self._argv(arguments),
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
        )
        try:
            stdout, stderr = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return None
        ended = time.monotonic() - started
        return Outcome(arguments, child.returncode, stdout, stderr, ended, _report(stdout))

    @staticmethod
    def _argv(arguments: Sequence[str]) -> list[str]:
        verb, *options = arguments
        return [str(MOVEOUT), verb, "--json", "--quiet", "--no-input", *options]


def _entries(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return what a report says of each source or destination."""
    return [entry for part in _PARTS for entry in report.get(part, [])]


def _names(entry: Mapping[str, Any]) -> tuple[object, object]:
    return entry.get("name"), entry.get("source")


def _report(stdout: str) -> Mapping[str, Any]:
    try:
        report = json.loads(stdout)
    except ValueError:
        return {}
    result: Mapping[str, Any] = report.get("result") or {}
    return result


def _in_order(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, list) else value

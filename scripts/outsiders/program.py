"""moveout's command line, run as users run it, and killed as machines kill it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scripts.servers import Servers, environment_for

MOVEOUT = Path(sys.executable).with_name("moveout")
COMPLETE, INCOMPLETE = 0, 3
HANGS_AFTER_SECONDS = 1800.0
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
        """Return what it reports, without what differs from run to run: times, counts of what was done before."""
        essence = [
            {name: entry[name] for name in _LASTING if entry.get(name)} for entry in _entries(self.report)
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
        started = time.monotonic()
        try:
            completed = subprocess.run(
                self._argv(arguments),
                cwd=self.directory,
                env=self.environment,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=HANGS_AFTER_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return Outcome(arguments, -1, "", "it hangs", time.monotonic() - started)
        seconds = time.monotonic() - started
        return Outcome(
            arguments,
            completed.returncode,
            completed.stdout,
            completed.stderr,
            seconds,
            _report(completed.stdout),
        )

    def run_killed(
        self, *arguments: str, kills: int, within: float, chance: random.Random
    ) -> tuple[Outcome, int]:
        """Run a command that is killed at random moments, up to ``kills`` times, each within so many seconds of its
        start; then run it to its end. Return how it ended and how many kills met it alive.
        """
        met = 0
        for _ in range(kills):
            child = subprocess.Popen(
                self._argv(arguments),
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                child.wait(chance.uniform(0, within))
                break
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                met += 1
        return self.run(*arguments), met

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

"""What an examination says of a source, a destination or a location before the move.

An engine brings a function of the type ``Examine`` for its sources (``Engine.doctor``), and another one for its
destinations (``Engine.destination_doctor``). They change nothing that lasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from msgspec import Struct, field

from exporters.errors import MoveoutError
from exporters.selection import EVERYTHING, Selection

Severity = Literal["blocks", "loses", "slow", "info"]
"""``blocks``: nothing of it leaves or comes up. ``loses``: something will be missing. ``slow``: it takes longer."""
SEVERITIES: tuple[Severity, ...] = ("blocks", "loses", "slow", "info")
FixKind = Literal["sql", "shell", "iam", "advice"]
CLOCK_SECONDS = 30.0
"""Clocks that differ by less are called equal."""


class Fix(Struct, frozen=True):
    """What mends a finding.

    ``text`` is exact: SQL for the ``database`` of a server, a command for a shell, or a policy document of IAM in JSON.
    As ``advice`` it is a sentence, where no command can know what is right. ``server`` says where it is to be run: host
    and port, the name of a profile, or "" for this machine.
    """

    kind: FixKind
    text: str
    server: str = ""
    database: str = ""


class Finding(Struct, frozen=True):
    """One thing that is not as it should be.

    ``check`` names what was examined ("rights", "TLS"). ``object`` is the table, bucket, server or file. ``problem``
    says what was seen, and ``consequence`` what it leads to, in a sentence each.
    """

    severity: Severity
    check: str
    object: str
    problem: str
    consequence: str
    fix: Fix | None = None

    @property
    def named_problem(self) -> str:
        """The problem, with the name of the object, once."""
        return self.problem if self.object in self.problem else f"{self.object}: {self.problem}"


class ExamineRequest(Struct, frozen=True):
    """What is to be examined. ``needs``: of a destination, what its source's examination said that it needs.

    ``workers`` are the connections that an export would like to open. ``deadline`` is that of the move. ``create``: a
    destination that is missing is made by the restore. ``follow``: what the source writes after its snapshot is to
    arrive, too. ``may_be_empty``: the case says so.
    """

    url: str
    secrets: Mapping[str, str] = field(default_factory=dict)
    selection: Selection = EVERYTHING
    workers: int = 4
    deadline: datetime | None = None
    needs: Mapping[str, Any] = field(default_factory=dict)
    create: bool = False
    follow: bool = False
    may_be_empty: bool = False

    def missing(self, name: str, error: MoveoutError, fix: Fix, *, may_create: bool = True) -> Finding:
        """Return the finding that a destination is missing. ``may_create``: this role may make it."""
        if self.create and may_create:
            return Finding("info", "destination", name, str(error), "The restore makes it.")
        consequence = "Nothing of it comes up, unless the restore makes it (--create)."
        if self.create:
            consequence = "Nothing of it comes up: this role may not make it."
        return Finding("blocks", "destination", name, str(error), consequence, fix)

    def no_log(self, name: str, problem: str, fix: Fix) -> Finding:
        """Return the finding that the log of a source cannot be followed."""
        return self._of_changes(
            name,
            problem,
            fix,
            followed=("slow", ": tables are compared in delta passes, the last one in the switch."),
            otherwise="Changes made after the snapshot do not follow; an export needs nothing of it.",
        )

    def not_in_log(self, name: str, problem: str, fix: Fix) -> Finding:
        """Return the finding that changes of some tables of a source are not in its log."""
        return self._of_changes(
            name,
            problem,
            fix,
            followed=("slow", ": their rows are read again in the switch, which takes longer."),
            otherwise="Changes made after the snapshot do not follow: the cutover reads the rows again.",
        )

    def not_applied(self, name: str, problem: str, fix: Fix) -> Finding:
        """Return the finding that a destination cannot be followed to."""
        return self._of_changes(
            name,
            problem,
            fix,
            followed=("loses", ", and no change made after the snapshot can be applied here."),
            otherwise="Changes made after the snapshot cannot be applied here; a restore needs nothing of it.",
        )

    def _of_changes(
        self, name: str, problem: str, fix: Fix, *, followed: tuple[Severity, str], otherwise: str
    ) -> Finding:
        """Return a finding about changes after the snapshot: how severe it is, and how its sentence goes on, where they
        are ``followed``; ``otherwise`` it only informs.
        """
        if not self.follow:
            return Finding("info", "changes", name, problem, otherwise, fix)
        severity, rest = followed
        return Finding(severity, "changes", name, problem, f"The case has follow = true{rest}", fix)


class Examination(Struct, frozen=True):
    """What was seen. ``facts`` are short words by the name of the check, for a table.

    ``needs`` is what a destination must have, in the engine's own words. ``size_bytes`` is about how much leaves.
    ``error`` says why nothing could be examined at all.
    """

    facts: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    needs: Mapping[str, Any] = field(default_factory=dict)
    size_bytes: int | None = None
    error: MoveoutError | None = None


class Examine(Protocol):
    """Examines one source or one destination. Raises ``MoveoutError`` where it cannot be asked at all."""

    def __call__(self, request: ExamineRequest) -> Examination:
        """Return what was seen."""
        ...


Check = tuple[str, Iterable[Finding]]
"""Its name, and what it finds. A generator looks only while it is read."""


def gather(checks: Iterable[Check], *, name: str, errors: tuple[type[Exception], ...]) -> list[Finding]:
    """Run checks; one that fails is a finding of its own, and the others still run."""
    findings: list[Finding] = []
    for check, results in checks:
        try:
            findings += results
        except errors as exc:
            reason = " ".join(str(exc).split()) or type(exc).__name__
            problem = f"could not be examined: {reason}"
            findings.append(Finding("info", check, name, problem, "Nothing is known about it."))
    return findings


def clock_skew(there: datetime, *, asked: datetime) -> float:
    """Return by how many seconds a server's clock is ahead of this machine's. ``there`` is the time in an answer that
    has just come, ``asked`` when the question left.
    """
    return (there - (asked + (datetime.now(UTC) - asked) / 2)).total_seconds()


def clock_finding(name: str, skew_seconds: float, server: str) -> list[Finding]:
    """Return a finding where a server's clock differs from this machine's."""
    if abs(skew_seconds) <= CLOCK_SECONDS:
        return []
    side = "ahead of" if skew_seconds > 0 else "behind"
    return [
        Finding(
            "info",
            "clock",
            name,
            f"the server's clock is {abs(skew_seconds):,.0f} s {side} this machine's",
            "Times in the bundle and the deadline are by this machine's clock. S3 refuses requests from 15 minutes on.",
            Fix("shell", "timedatectl set-ntp true", server),
        )
    ]


def clock_words(skew_seconds: float) -> str:
    """Return how far a clock is off, for a table."""
    return "equal" if abs(skew_seconds) <= CLOCK_SECONDS else f"{skew_seconds:+,.0f} s"


def count_words(count: int, noun: str) -> str:
    """Return a count with its noun for a table: ``2 missing``, and "all" for none."""
    return f"{count} {noun}" if count else "all"

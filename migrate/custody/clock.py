"""The obligation clock: what has to have happened by when, and what must not yet, by rules with a source for every
number, evaluated from the custody log. It is a clock, and no legal advice.

A rule file is TOML (``version`` 1): ``id``, ``title``, ``source``, ``applies``, and rules with ``id``, ``article``,
``says``, ``kind``, ``start``, ``event`` and, by kind, ``period``. Events are those of the log; ``noted:<what>`` is what
``moveout custody note`` wrote down. Kinds:

- ``within``: one of ``event`` happens at most ``period`` after the first of ``start``
- ``not-before``: none of ``event`` happens earlier than ``period`` after the last of ``start``
- ``requires``: none of ``event`` happens before one of ``start`` has
- ``happens``: one of ``event`` happens some time after ``start``
"""

from __future__ import annotations

import calendar
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

from migrate.custody.entry import Entry
from migrate.errors import UsageError

VERSION = 1
BUILT_IN = ("eu-data-act", "gdpr", "sec-17a-4")
USUAL = ("eu-data-act", "gdpr")
"""What is looked at unless told."""
KINDS = ("within", "not-before", "requires", "happens")
State: TypeAlias = Literal["met", "due", "breached", "unknown"]
_PERIOD = re.compile(r"(\d{1,4}) (second|minute|hour|day|month|year)s?")


@dataclass(frozen=True, slots=True)
class Rule:
    """One obligation. ``period`` is (number, unit), None where the rule names none."""

    id: str
    article: str
    says: str
    kind: str
    start: Sequence[str]
    event: Sequence[str]
    period: tuple[int, str] | None


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules of one source."""

    id: str
    title: str
    source: str
    applies: str
    rules: Sequence[Rule]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the log says of one rule. ``due`` is the moment by which, or until which; ``entries`` the numbers of the
    entries that show it; ``why`` says it in words.
    """

    rules: str
    rule: Rule
    state: State
    due: datetime | None
    entries: Sequence[int]
    why: str


@dataclass(frozen=True, slots=True)
class _Seen:
    moment: datetime
    number: int


def load(name: str) -> RuleSet:
    """Return a set of rules: a built-in one by its id, or a file. Raises ``UsageError`` that names the place."""
    try:
        if name in BUILT_IN:
            text = (files("migrate.custody") / "rules" / f"{name}.toml").read_text(encoding="utf-8")
        else:
            text = Path(name).read_text(encoding="utf-8")
        value = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise UsageError(
            f"the rules {name} cannot be read: {exc}",
            next_step=f"built in are {', '.join(BUILT_IN)}; else name a file",
        ) from exc
    if value.get("version") != VERSION:
        raise UsageError(f"{name} has version {value.get('version')!r}; this moveout reads version {VERSION}")
    try:
        rules = [_rule(one, f"{name}, rule {number}") for number, one in enumerate(value["rule"], 1)]
        return RuleSet(
            str(value["id"]), str(value["title"]), str(value["source"]), str(value["applies"]), rules
        )
    except (KeyError, TypeError) as exc:
        raise UsageError(f"{name} lacks {exc}") from exc


def _rule(value: Mapping[str, Any], where: str) -> Rule:
    period = None
    if "period" in value:
        match = _PERIOD.fullmatch(str(value["period"]))
        if match is None:
            raise UsageError(
                f"{where}: {value['period']!r} is no period", next_step='write "30 days" or "2 months"'
            )
        period = (int(match[1]), match[2])
    kind = str(value["kind"])
    if kind not in KINDS or (period is None) == (kind in {"within", "not-before"}):
        raise UsageError(f"{where}: kind must be one of {', '.join(KINDS)}, the first two with a period")
    start, event = list(map(str, value["start"])), list(map(str, value["event"]))
    return Rule(str(value["id"]), str(value["article"]), str(value["says"]), kind, start, event, period)


def judge(rules: RuleSet, entries: Sequence[Entry], now: datetime) -> list[Verdict]:
    """Evaluate every rule at a moment. The moments of the log are its writers' clocks."""
    seen: dict[str, list[_Seen]] = {}
    for one in entries:
        what, moment = one.what.event, one.moment
        if what == "noted":
            what = f"noted:{one.what.details.get('what')}"
            moment = _noted(one)
        seen.setdefault(what, []).append(_Seen(moment, one.number))
    return [_judge(rules.id, rule, seen, now) for rule in rules.rules]


def would_breach(rules: RuleSet, entries: Sequence[Entry], event: str, now: datetime) -> list[Verdict]:
    """Return the rules that ``event`` would breach if it happened now."""
    found = []
    for verdict in judge(rules, entries, now):
        rule = verdict.rule
        if (
            event not in rule.event
            or rule.kind not in {"not-before", "requires"}
            or verdict.state == "breached"
        ):
            continue
        if rule.kind == "not-before" and verdict.state == "due":
            found.append(verdict)
        if rule.kind == "requires" and verdict.state == "unknown":
            found.append(verdict)
    return found


@dataclass(frozen=True, slots=True)
class _Case:
    """One rule and what the log has for it, in order of time."""

    rules: str
    rule: Rule
    starts: Sequence[_Seen]
    events: Sequence[_Seen]
    now: datetime

    def verdict(self, state: State, why: str, due: datetime | None, *shown: _Seen) -> Verdict:
        return Verdict(self.rules, self.rule, state, due, sorted({one.number for one in shown}), why)

    @property
    def names(self) -> str:
        return " or ".join(self.rule.start)

    @property
    def wanted(self) -> str:
        return " or ".join(self.rule.event)

    @property
    def after(self) -> _Seen | None:
        return next((one for one in self.events if one.moment >= self.starts[0].moment), None)


def _judge(rules: str, rule: Rule, seen: Mapping[str, Sequence[_Seen]], now: datetime) -> Verdict:
    def of(names: Sequence[str]) -> list[_Seen]:
        return sorted((one for name in names for one in seen.get(name, ())), key=lambda one: one.moment)

    case = _Case(rules, rule, of(rule.start), of(rule.event), now)
    if rule.kind == "requires":
        return _requires(case)
    if not case.starts:
        why = f"the log does not say when it began ({case.names})"
        return case.verdict("unknown", why, None, *case.events[:1])
    return {"within": _within, "not-before": _not_before, "happens": _happens}[rule.kind](case)


def _requires(case: _Case) -> Verdict:
    if case.events and (not case.starts or case.starts[0].moment > case.events[0].moment):
        return case.verdict("breached", f"{case.wanted} without {case.names} before it", None, case.events[0])
    if case.starts:
        return case.verdict("met", f"{case.names} is in the log", None, case.starts[0], *case.events[:1])
    return case.verdict("unknown", f"neither {case.names} nor {case.wanted} is in the log yet", None)


def _happens(case: _Case) -> Verdict:
    if case.after is not None:
        return case.verdict("met", f"{case.wanted} is in the log", None, case.starts[0], case.after)
    return case.verdict("due", f"no {case.wanted} yet; the rule names no day", None, case.starts[0])


def _within(case: _Case) -> Verdict:
    assert case.rule.period is not None
    due = later(case.starts[0].moment, case.rule.period)
    if case.after is not None:
        state: State = "met" if case.after.moment <= due else "breached"
        why = f"{case.wanted} at {_shown(case.after.moment)}"
        return case.verdict(state, why, due, case.starts[0], case.after)
    if case.now <= due:
        return case.verdict("due", f"{case.wanted} by {_shown(due)}", due, case.starts[0])
    return case.verdict("breached", f"no {case.wanted} by {_shown(due)}", due, case.starts[0])


def _not_before(case: _Case) -> Verdict:
    assert case.rule.period is not None
    due = later(case.starts[-1].moment, case.rule.period)
    if case.events:
        state: State = "met" if case.events[0].moment >= due else "breached"
        why = f"{case.wanted} at {_shown(case.events[0].moment)}, allowed from {_shown(due)}"
        return case.verdict(state, why, due, case.starts[-1], case.events[0])
    if case.now < due:
        return case.verdict("due", f"no {case.wanted} before {_shown(due)}", due, case.starts[-1])
    return case.verdict("met", f"the time was over at {_shown(due)}", due, case.starts[-1])


def later(moment: datetime, period: tuple[int, str]) -> datetime:
    """Return the moment a period later; months and years by the calendar, the last day where a month is shorter."""
    number, unit = period
    if unit not in {"month", "year"}:
        return moment + timedelta(**{f"{unit}s": number})
    months = moment.month - 1 + number * (12 if unit == "year" else 1)
    year, month = moment.year + months // 12, months % 12 + 1
    return moment.replace(year=year, month=month, day=min(moment.day, calendar.monthrange(year, month)[1]))


def _noted(one: Entry) -> datetime:
    try:
        moment = datetime.fromisoformat(str(one.what.details.get("at")))
    except ValueError:
        return one.moment
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")

"""The obligation clock: what has to have happened by when, and what must not yet, by rules with a source for every
number (``rulebook``), evaluated from the custody log. It is a clock, and no legal advice.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from migrate.custody.log.entry import LogEntry, moment_of
from migrate.custody.obligations.rulebook import Period, Rule, RuleSet

State: TypeAlias = Literal["met", "due", "breached", "unknown"]
_EXACT = ("second", "minute", "hour")


class Verdict(Struct, frozen=True):
    """What the log says of one rule. ``due`` is the moment by which, or until which; ``entries`` the numbers of the
    entries that show it; ``why`` says it in words.
    """

    rules: str
    rule: Rule
    state: State
    due: datetime | None
    entries: Sequence[int]
    why: str


class _Seen(Struct, frozen=True):
    """An event of the log. ``latest`` is the latest moment of the log up to it: it was not before, whatever a
    clock showed that was set back. What was noted happened when the note says.
    """

    moment: datetime
    number: int
    latest: datetime
    is_damaged: bool = False
    """Whether it is a receipt that names damage."""

    def order(self) -> tuple[datetime, int]:
        """Order events as they happened, by the log."""
        return self.latest, self.number


def judge(rules: RuleSet, entries: Sequence[LogEntry], now: datetime) -> list[Verdict]:
    """Evaluate every rule at a moment. The moments of the log are its writers' clocks."""
    return [_judge(case) for case in _cases(rules, entries, now)]


_ERASURE = frozenset({"erasing", "erased"})


def breached_by_erasure(rules: RuleSet, entries: Sequence[LogEntry], now: datetime) -> list[Verdict]:
    """Return the rules that an erasure now would breach, whatever happened before. What must not happen before a time
    counts, too, where the log does not say when that time began.
    """
    verdicts = []
    for case in _cases(rules, entries, now):
        if not _ERASURE.isdisjoint(case.rule.event) and case.rule.kind in {"not-before", "requires"}:
            verdict = _judge(replace(case, events=()))
            if verdict.state in {"due", "unknown"}:
                verdicts.append(verdict)
    return verdicts


def _cases(rules: RuleSet, entries: Sequence[LogEntry], now: datetime) -> Iterator[_Case]:
    seen_by_event: dict[str, list[_Seen]] = {}
    latest = datetime.min.replace(tzinfo=UTC)
    for entry in entries:
        latest = max(latest, entry.moment)
        event, seen = entry.what.event, _Seen(entry.moment, entry.number, latest, _is_damaged(entry))
        if event == "noted":
            event = f"noted:{entry.what.details.get('what')}"
            seen = _Seen(_noted(entry), entry.number, _noted(entry))
        seen_by_event.setdefault(event, []).append(seen)

    def of(names: Sequence[str], *, damaged: bool = False) -> list[_Seen]:
        return sorted(
            (
                seen_event
                for name in names
                for seen_event in seen_by_event.get(name, ())
                if damaged or not seen_event.is_damaged
            ),
            key=lambda seen_event: seen_event.moment,
        )

    for rule in rules.rules:
        notes = [of(longer.until) for longer in rule.longer]
        starts = of(rule.start, damaged=rule.kind == "not-before")
        yield _Case(rules.id, rule, starts, of(rule.event), now, notes)


def _is_damaged(entry: LogEntry) -> bool:
    """Tell whether an entry is of a receipt that names damage: nothing was handed over by it. It makes a time to keep
    longer, and meets nothing.
    """
    return entry.what.event in {"received", "acknowledged"} and bool(entry.what.details.get("findings"))


class _Case(Struct, frozen=True):
    """One rule and what the log has for it, in order of time."""

    rules: str
    rule: Rule
    starts: Sequence[_Seen]
    events: Sequence[_Seen]
    now: datetime
    notes: Sequence[Sequence[_Seen]] = ()
    """What puts the end off, for each of the rule's ``longer``."""

    def verdict(self, state: State, reason: str, due: datetime | None, *shown: _Seen) -> Verdict:
        return Verdict(self.rules, self.rule, state, due, sorted({event.number for event in shown}), reason)

    @property
    def names(self) -> str:
        return " or ".join(self.rule.start)

    @property
    def event_names(self) -> str:
        return " or ".join(self.rule.event)

    @property
    def after(self) -> _Seen | None:
        return next((event for event in self.events if event.moment >= self.starts[0].moment), None)


def _judge(case: _Case) -> Verdict:
    if case.rule.kind == "requires":
        return _requires(case)
    if not case.starts:
        reason = f"the log does not say when it began ({case.names})"
        return case.verdict("unknown", reason, None, *case.events[:1])
    return {"within": _within, "not-before": _not_before, "happens": _happens}[case.rule.kind](case)


def _requires(case: _Case) -> Verdict:
    """Judge by the order of the log: a clock that is set back brings nothing before what the log has above it."""
    starts, events = (sorted(seen, key=_Seen.order) for seen in (case.starts, case.events))
    if events and (not starts or starts[0].order() > events[0].order()):
        return case.verdict("breached", f"{case.event_names} without {case.names} before it", None, events[0])
    if starts:
        return case.verdict("met", f"{case.names} is in the log", None, starts[0], *events[:1])
    return case.verdict("unknown", f"not in the log yet: {case.names}; {case.event_names}", None)


def _happens(case: _Case) -> Verdict:
    if case.after is not None:
        return case.verdict("met", f"{case.event_names} is in the log", None, case.starts[0], case.after)
    return case.verdict(
        "due", f"not in the log yet: {case.event_names}; the rule names no day", None, case.starts[0]
    )


def _within(case: _Case) -> Verdict:
    due, *by = _end(case)
    shown = [case.starts[0], *by]
    if case.after is not None:
        state: State = "met" if case.after.latest <= due else "breached"
        reason = f"{case.event_names} at {_shown(case.after.moment)}"
        if case.after.moment <= due < case.after.latest:
            state = "unknown"
            reason += f", and the log has {_shown(case.after.latest)} before that: a clock was wrong"
        return case.verdict(state, reason, due, *shown, case.after)
    if case.now <= due:
        return case.verdict("due", f"{case.event_names} by {_shown(due)}", due, *shown)
    return case.verdict("breached", f"not in the log by {_shown(due)}: {case.event_names}", due, *shown)


def _end(case: _Case) -> tuple[datetime, *tuple[_Seen, ...]]:
    """Return when a rule's time is over, and the notes that put it off."""
    assert case.rule.period is not None
    start = case.starts[0].moment
    due, by = later(start, case.rule.period), []
    for longer, notes in zip(case.rule.longer, case.notes, strict=True):
        limit = later(start, longer.at_most) if longer.at_most else None
        for note in notes:
            end = min(note.moment, limit) if limit else note.moment
            if end > due:
                due, by = end, [note]
    return (due, *by)


def _not_before(case: _Case) -> Verdict:
    assert case.rule.period is not None
    start = max(case.starts, key=lambda seen: seen.latest)
    due = later(start.latest, case.rule.period)
    if case.events:
        state: State = "met" if case.events[0].moment >= due else "breached"
        reason = f"{case.event_names} at {_shown(case.events[0].moment)}, allowed from {_shown(due)}"
        return case.verdict(state, reason, due, start, case.events[0])
    if case.now < due:
        return case.verdict("due", f"{case.event_names} not before {_shown(due)}", due, start)
    return case.verdict("met", f"the time was over at {_shown(due)}", due, start)


def later(moment: datetime, period: Period) -> datetime:
    """Return when a period is over that begins at a moment. One in days, months or years ends with its last day (UTC),
    and the day on which it begins is not counted, as Regulation (EEC, Euratom) No 1182/71, Article 3 has it. That a
    last day on a weekend or holiday is put off is not counted: the clock has no list of holidays. Months and years go
    by the calendar, the last day where a month is shorter.
    """
    try:
        return _later(moment, *period)
    except (OverflowError, ValueError):  # beyond the calendar's last year
        return datetime.max.replace(tzinfo=UTC)


def _later(moment: datetime, number: int, unit: str) -> datetime:
    if unit in _EXACT:
        return moment + timedelta(**{f"{unit}s": number})
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "day":
        return day + timedelta(days=number + 1)
    months = day.month - 1 + number * (12 if unit == "year" else 1)
    year, month = day.year + months // 12, months % 12 + 1
    last = min(day.day, calendar.monthrange(year, month)[1])
    return day.replace(year=year, month=month, day=last) + timedelta(days=1)


def _noted(entry: LogEntry) -> datetime:
    return moment_of(entry.what.details.get("at")) or entry.moment


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")

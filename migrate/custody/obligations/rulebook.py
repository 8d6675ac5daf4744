"""Rules of an obligation: what a law or a contract wants by when, each with its source.

A file is TOML (``version`` 1) with ``id``, ``title``, ``source``, ``applies`` and ``checked``: against which text its
numbers were read (without it the clock says that nobody did). Its rules have ``id``, ``article``, ``says``, ``kind``,
``start``, ``event`` and, by kind, ``period``. Events are those of the log; ``noted:<what>`` is what
``moveout custody note`` wrote down. Fields and events that are not known are refused: a misspelt one must not change a
date. Kinds:

- ``within``: one of ``event`` happens at most ``period`` after the first of ``start``; ``longer`` says what puts that
  off: the moment of one of the notes ``until``, no further than ``at-most`` after the first of ``start``
- ``not-before``: none of ``event`` happens earlier than ``period`` after the last of ``start``
- ``requires``: none of ``event`` happens before one of ``start`` has
- ``happens``: one of ``event`` happens some time after ``start``
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

from msgspec import Struct

from migrate.custody.log.entry import EVENTS
from migrate.errors import UsageError

VERSION = 1
BUILT_IN = ("eu-data-act", "gdpr", "sec-17a-4")
USUAL = ("eu-data-act", "gdpr")
"""What is looked at by default."""
KINDS = ("within", "not-before", "requires", "happens")
NOT_CHECKED = "not checked against the published text"
Period: TypeAlias = tuple[int, str]
"""(number, unit)."""
_PERIOD = re.compile(r"(\d{1,4}) (second|minute|hour|day|month|year)s?")
_SET = {"version", "id", "title", "source", "applies", "checked", "rule"}
_RULE = {"id", "article", "says", "kind", "start", "event", "period", "longer"}
_LONGER = {"until", "at-most"}


class Longer(Struct, frozen=True):
    """What puts the end of a rule off: one of the notes ``until`` names the new end, at most ``at_most`` after the
    start.
    """

    until: Sequence[str]
    at_most: Period | None


class Rule(Struct, frozen=True):
    """One obligation. ``period`` is None where the rule names none."""

    id: str
    article: str
    says: str
    kind: str
    start: Sequence[str]
    event: Sequence[str]
    period: Period | None
    longer: Sequence[Longer] = ()


class RuleSet(Struct, frozen=True):
    """Rules of one source. ``checked`` says against which text its numbers were read."""

    id: str
    title: str
    source: str
    applies: str
    checked: str
    rules: Sequence[Rule]


def load(name: str) -> RuleSet:
    """Return a set of rules: a built-in one by its id, or a file. Raises ``UsageError`` that names the location."""
    try:
        if name in BUILT_IN:
            text = (files("migrate.custody.obligations") / "rules" / f"{name}.toml").read_text(
                encoding="utf-8"
            )
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
        _known(value, _SET, name)
        rules = [
            _rule(rule_value, f"{name}, rule {number}") for number, rule_value in enumerate(value["rule"], 1)
        ]
        identity, title, source, applies = (
            str(value[field]) for field in ("id", "title", "source", "applies")
        )
        return RuleSet(identity, title, source, applies, str(value.get("checked", NOT_CHECKED)), rules)
    except (KeyError, TypeError) as exc:
        raise UsageError(f"{name} lacks {exc}") from exc


def _rule(value: Mapping[str, Any], rule_name: str) -> Rule:
    _known(value, _RULE, rule_name)
    period = _period(value["period"], rule_name) if "period" in value else None
    kind = str(value["kind"])
    if kind not in KINDS or (period is None) == (kind in {"within", "not-before"}):
        raise UsageError(f"{rule_name}: kind must be one of {', '.join(KINDS)}, the first two with a period")
    longer = [_longer(longer_value, rule_name) for longer_value in value.get("longer", ())]
    if longer and kind != "within":
        raise UsageError(f"{rule_name}: only a rule of the kind within can be put off (longer)")
    start, event = _events(value["start"], rule_name), _events(value["event"], rule_name)
    identity, article, text = (str(value[field]) for field in ("id", "article", "says"))
    return Rule(
        id=identity,
        article=article,
        says=text,
        kind=kind,
        start=start,
        event=event,
        period=period,
        longer=longer,
    )


def _longer(value: Mapping[str, Any], rule_name: str) -> Longer:
    _known(value, _LONGER, rule_name)
    at_most = _period(value["at-most"], rule_name) if "at-most" in value else None
    return Longer(_events(value["until"], rule_name), at_most)


def _events(value: object, rule_name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(event, str) for event in value):
        raise UsageError(f"{rule_name}: {value!r} is not a list of events", next_step='write ["received"]')
    for event in value:
        if event not in EVENTS and not re.fullmatch(r"noted:\S+", event):
            raise UsageError(
                f"{rule_name}: {event!r} is not an event of the custody log",
                next_step=f"there are noted:WORD, {', '.join(EVENTS)}",
            )
    return value


def _period(value: object, rule_name: str) -> Period:
    match = _PERIOD.fullmatch(str(value))
    if match is None:
        raise UsageError(f"{rule_name}: {value!r} is not a period", next_step='write "30 days" or "2 months"')
    return (int(match[1]), match[2])


def _known(value: Mapping[str, Any], fields: set[str], rule_name: str) -> None:
    if unknown := sorted(set(value) - fields):
        raise UsageError(
            f"{rule_name}: {unknown[0]!r} is not a field", next_step=f"known are {', '.join(sorted(fields))}"
        )

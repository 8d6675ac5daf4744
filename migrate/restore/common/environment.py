"""Notes about what may differ around a database at the destination: its name, which objects may contain, and the
settings of new sessions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from exporters.api import Loss
from migrate.number_text import list_words


def note_database_name(
    texts: Iterable[tuple[str, str]], before: str, now: str, quote: str
) -> tuple[list[Loss], list[str]]:
    """Return a loss for each object whose text names the database ``before``, which is called ``now``, and a note about
    them. ``texts``: of objects, by what messages call these. ``quote``: the mark around names.
    """
    pattern = _naming(before, quote)
    names = [name for name, text in texts if pattern.search(text)]
    shown_before, shown_now = (f"{quote}{name.replace(quote, quote * 2)}{quote}" for name in (before, now))
    reason = (
        f"it names {shown_before} itself: where that is the database, it is not {shown_now}; look at it, and make it"
        " again"
    )
    note = f"the database was {shown_before} and is {shown_now} here; it is named by {list_words(names)}"
    return [Loss(name, "name of its database", reason) for name in names], [note] if names else []


def _naming(database: str, quote: str) -> re.Pattern[str]:
    """Return what finds the name before a point, quoted or not, in whatever case; also within texts."""
    name, mark = re.escape(database), re.escape(quote)
    quoted = re.escape(database.replace(quote, quote * 2))
    plain = rf"|(?<![\w${mark}.]){name}" if re.fullmatch(r"[\w$]+", database) else ""
    return re.compile(rf"(?:{mark}{quoted}{mark}{plain})\s*\.\s*(?=[\w${mark}])", re.IGNORECASE)


def note_other_settings(source: Mapping[str, Any], destination: Mapping[str, Any]) -> list[str]:
    """Return a note about settings of sessions that both sides have, and that are others at the destination."""
    others = [
        f"{name} = {_shown(destination[name])} (there {_shown(value)})"
        for name, value in sorted(source.items())
        if destination.get(name, value) != value
    ]
    words = "sessions begin with other settings than at the source, and may come to other results"
    return [f"{words}: {'; '.join(others)}"] if others else []


def _shown(value: Any) -> str:
    return str(value) or "''"

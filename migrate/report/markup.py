"""HTML from values that may hold anything: names in a bundle are a stranger's.

A fragment is ``Html``; every other string is text and is escaped where it meets a fragment. Text keeps its own
direction (``<bdi>``), and what cannot be seen, or would change how the rest of the line is read, stands as its code
point.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""General categories (Unicode, chapter 4.5): controls, formats such as U+202E, surrogates, private, unassigned, line
breaks.
"""
_MOST = 300


class Html(str):
    """Markup that is right as it stands."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return a value of ours, escaped."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def name(value: str) -> Html:
    """Return a stranger's text: isolated, cut where it is very long, with code points for what is hidden."""
    cut = value if len(value) <= _MOST else value[:_MOST]
    more = "" if len(value) <= _MOST else f"<i>… ({len(value)} characters)</i>"
    return Html(f"<bdi>{''.join(map(_character, cut))}</bdi>{more}")


def _character(one: str) -> str:
    if unicodedata.category(one) in _HIDDEN or (one.isspace() and one != " "):
        return f'<span class="code">U+{ord(one):04X}</span>'
    return escape(one)


def tag(kind: str, *parts: object, **attributes: str) -> Html:
    """Return an element; ``class_`` is ``class``, ``data_head`` is ``data-head``."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items()
    )
    return Html(f"<{kind}{said}>{''.join(text(part) for part in parts)}</{kind}>")


def joined(parts: Iterable[object], between: str = "") -> Html:
    """Return parts one after the other."""
    return Html(text(between).join(text(part) for part in parts))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = ()) -> Html:
    """Return a table that scrolls by itself where it is too wide; on a phone each cell is a line, after its column's
    head. ``numbers``: columns that are set to the right.
    """

    def cell(kind: str, position: int, value: object, **more: str) -> Html:
        return tag(kind, value, **more, **({"class_": "number"} if position in numbers else {}))

    head = tag("tr", *(cell("th", i, value) for i, value in enumerate(heads)))
    body = joined(
        tag("tr", *(cell("td", i, value, data_head=heads[i]) for i, value in enumerate(row))) for row in rows
    )
    return tag("div", tag("table", tag("thead", head), tag("tbody", body)), class_="wide", tabindex="0")


def facts(pairs: Iterable[tuple[object, object]]) -> Html:
    """Return a list of names and values."""
    return tag("dl", joined(tag("div", tag("dt", what), tag("dd", value)) for what, value in pairs))

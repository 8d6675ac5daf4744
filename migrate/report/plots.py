"""Plots as inline SVG, drawn without a script. Labels are HTML beside them: they stay readable on any screen."""

from __future__ import annotations

import re
from collections.abc import Sequence

from migrate.bundle.throughput_history import Pace
from migrate.number_text import bytes_words
from migrate.report.markup import Html, joined, name, tag, text

_WIDTH, _HEIGHT = 600, 120
_MOMENT = re.compile(r"[0-9T:.Z+-]+")


def bars(title: str, rows: Sequence[tuple[Html | str, int]]) -> Html:
    """Return one bar a row, as long as its bytes compared with the longest; nothing where one alone has any."""
    if sum(size > 0 for _, size in rows) < 2:
        return Html("")
    longest = max((size for _, size in rows), default=0) or 1
    drawn = (
        tag(
            "div",
            tag("span", label if isinstance(label, Html) else name(label), class_="label"),
            _bar(size / longest),
            tag("span", bytes_words(size), class_="value"),
            class_="bar",
        )
        for label, size in rows
    )
    return tag("figure", tag("figcaption", title), joined(drawn), class_="bars")


def _bar(share: float) -> Html:
    width = f"{max(share * 100, 0.4 if share else 0):.2f}"  # what is small is seen, what is empty is not
    return Html(
        '<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"/>'
        f'<rect class="fill" width="{width}" height="8"/></svg>'
    )


def rate(pace: Pace) -> Html:
    """Return bytes by time as steps."""
    peak = max(pace.size_bytes, default=0) or 1
    title = f"Bytes read from the sources over time, at most {bytes_words(peak / pace.step_seconds)} a second"
    step = _WIDTH / max(len(pace.size_bytes), 1)
    points = [f"0,{_HEIGHT}"]
    for place, size in enumerate(pace.size_bytes):
        height = _HEIGHT - size / peak * (_HEIGHT - 4)
        points += [f"{place * step:.1f},{height:.1f}", f"{(place + 1) * step:.1f},{height:.1f}"]
    points.append(f"{_WIDTH},{_HEIGHT}")
    drawn = Html(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" class="area">'
        f'<title>{text(title)}</title><polygon class="fill" points="{" ".join(points)}"/></svg>'
    )
    axis = tag("div", tag("span", moment(pace.start)), tag("span", moment(pace.end)), class_="axis")
    return tag("figure", tag("figcaption", title), drawn, axis)


def moment(at: str) -> Html:
    """Return ``2026-01-31T12:00:00Z`` as people read it."""
    shown = at.replace("T", " ").removesuffix("Z")
    said = {"datetime": at} if _MOMENT.fullmatch(at) else {}
    return tag("time", name(f"{shown} UTC" if at.endswith("Z") else shown), **said)

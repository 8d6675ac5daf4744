"""Pages from the templates next to this module: no script, nothing from elsewhere, whatever a name in a bundle says.

Every value is escaped where it stands. Text that comes from a bundle also goes through the filter ``name``. It keeps
its own direction (``<bdi>``). Characters that cannot be seen, or would change how the rest of the line is read, stand
as their code points.
"""

from __future__ import annotations

import functools
import re
import shlex
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from migrate.bundle.bundle_json import Pace
from migrate.number_text import bytes_words, count_words, duration_words, exact_bytes_words, things

if TYPE_CHECKING:
    import jinja2

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""General categories (Unicode, chapter 4.5): controls, formats such as U+202E, surrogates, private, unassigned, line
breaks.
"""
_LONGEST_NAME = 300
_MOMENT = re.compile(r"[0-9T:.Z+-]+")


def render(template: str, values: Mapping[str, object]) -> bytes:
    """Return a page, UTF-8."""
    text = get_template(template).render(values)
    return text.encode("utf-8", "backslashreplace")


def get_template(template: str) -> jinja2.Template:
    """Return a template that is compiled; the first time this takes a while."""
    return environment().get_template(template)


@functools.cache
def environment() -> jinja2.Environment:
    """Return the templates with their filters."""
    from migrate.report.template_cache import open_templates  # noqa: PLC0415  jinja2 is imported by who writes a page

    filters: Mapping[str, Callable[..., object]] = {
        "name": name,
        "moment": moment,
        "count": count_words,
        "bytes": bytes_words,
        "exact_bytes": exact_bytes_words,
        "things": things,
        "duration": duration_words,
        "quote": shlex.quote,
        "peak": _peak,
        "area": _area,
    }
    return open_templates(Path(__file__).parent / "templates", filters)


def name(value: str) -> Markup:
    """Return text of a stranger: isolated, cut where it is very long, with code points for hidden characters."""
    if isinstance(value, Markup):
        return value
    cut = value[:_LONGEST_NAME]
    characters = escape(cut) if cut.isprintable() else Markup("").join(map(_character, cut))
    if len(value) <= _LONGEST_NAME:
        return Markup("<bdi>{}</bdi>").format(characters)
    return Markup("<bdi>{}</bdi><i>… ({} characters)</i>").format(characters, len(value))


def _character(character: str) -> Markup:
    if unicodedata.category(character) in _HIDDEN or (character.isspace() and character != " "):
        return Markup('<span class="code">U+{:04X}</span>').format(ord(character))
    return escape(character)


def moment(time: str) -> Markup:
    """Return ``2026-01-31T12:00:00Z`` as people read it."""
    shown = name(time.replace("T", " ").removesuffix("Z") + (" UTC" if time.endswith("Z") else ""))
    if _MOMENT.fullmatch(time):
        return Markup('<time datetime="{}">{}</time>').format(time, shown)
    return Markup("<time>{}</time>").format(shown)


def _peak(pace: Pace) -> float:
    """Return the bytes a second of the fastest step."""
    return (max(pace.size_bytes, default=0) or 1) / pace.step_seconds


def _area(pace: Pace, width: int, height: int) -> str:
    """Return the corners of a polygon: bytes by time, in steps."""
    largest = max(pace.size_bytes, default=0) or 1
    step = width / max(len(pace.size_bytes), 1)
    corners = [f"0,{height}"]
    for number, size in enumerate(pace.size_bytes):
        top = height - size / largest * (height - 4)
        corners += [f"{number * step:.1f},{top:.1f}", f"{(number + 1) * step:.1f},{top:.1f}"]
    return " ".join([*corners, f"{width},{height}"])

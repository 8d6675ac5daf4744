"""Settings of servers, databases and roles that no definition has, and on which an application's statements depend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def note_other_settings(source: Mapping[str, Any], destination: Mapping[str, Any]) -> list[str]:
    """Return a note about settings with which sessions begin otherwise at the destination, of those that both sides
    have; none where there are no such.
    """
    others = [
        f"{name} = {_shown(destination[name])} (there {_shown(value)})"
        for name, value in sorted(source.items())
        if destination.get(name, value) != value
    ]
    words = "sessions begin with other settings than at the source, and may come to other results"
    return [f"{words}: {'; '.join(others)}"] if others else []


def _shown(value: Any) -> str:
    return str(value) or "''"

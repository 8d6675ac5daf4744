"""Which of a source's items are selected, if not all. Pure; what is not selected is excluded by
name and with the reason, never left out in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from msgspec import Struct, field


class Selection(Struct, frozen=True):
    """The choice for one source; as made by default it takes everything.

    ``include`` and ``exclude`` are globs (see ``glob``) of keys relative to the source's prefix: what matches an
    ``exclude`` stays, and with any ``include`` so does what matches none of them. Sizes are bytes, bounds
    included; ``newer_than`` and ``older_than`` are moments of the last change. An object needs all ``tags``.
    ``current_only`` leaves out older versions and delete markers.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_bytes: int | None = None
    max_bytes: int | None = None
    newer_than: datetime | None = None
    older_than: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    current_only: bool = False

    @property
    def filters(self) -> bool:
        """Whether a listing alone can exclude something."""
        bounds = (self.min_bytes, self.max_bytes, self.newer_than, self.older_than)
        return bool(self.include or self.exclude or any(bound is not None for bound in bounds))

    def excludes(self, key: str, size_bytes: int | None, modified: datetime) -> str | None:
        """Return why an item is excluded, None where it is not. ``size_bytes`` is None for what has no size."""
        for pattern in self.exclude:
            if glob(pattern).match(key):
                return f"not selected: matches --exclude {pattern}"
        if self.include and not any(glob(pattern).match(key) for pattern in self.include):
            return "not selected: matches no --include"
        if size_bytes is not None:
            if self.min_bytes is not None and size_bytes < self.min_bytes:
                return f"not selected: smaller than {self.min_bytes} bytes"
            if self.max_bytes is not None and size_bytes > self.max_bytes:
                return f"not selected: larger than {self.max_bytes} bytes"
        if self.newer_than is not None and modified < self.newer_than:
            return f"not selected: last changed before {self.newer_than.isoformat()}"
        if self.older_than is not None and modified >= self.older_than:
            return f"not selected: last changed after {self.older_than.isoformat()}"
        return None

    def excludes_tags(self, tags: Mapping[str, str]) -> str | None:
        """Return why an item with these tags is excluded, None where it is not."""
        for name, value in self.tags.items():
            if tags.get(name) != value:
                return f"not selected: has no tag {name}={value}"
        return None

    def describe(self) -> str:
        """Return the choice as JSON text, the same for the same choice; empty where everything is selected."""
        chosen = {
            "include": sorted(self.include),
            "exclude": sorted(self.exclude),
            "min_bytes": self.min_bytes,
            "max_bytes": self.max_bytes,
            "newer_than": self.newer_than.isoformat() if self.newer_than else None,
            "older_than": self.older_than.isoformat() if self.older_than else None,
            "tags": dict(self.tags),
            "current_only": self.current_only,
        }
        filters = {name: value for name, value in chosen.items() if value not in (None, False, [], {})}
        return json.dumps(filters, sort_keys=True) if filters else ""


EVERYTHING = Selection()


def is_glob(pattern: str) -> bool:
    """Tell whether each ``[`` of a glob has its ``]``: else it would be a character, which hardly anybody means."""
    return "[" not in _CLASSES.sub("", pattern)


_CLASSES = re.compile(r"\[.[^]]*\]", re.DOTALL)
"""One character of a glob: ``[a-z]``, ``[!a-z]``, ``[]]``, ``[[]``."""


@lru_cache(maxsize=1024)
def glob(pattern: str) -> re.Pattern[str]:
    """Return a glob as a pattern for ``match``. ``*`` and ``?`` stop at slashes, ``**`` does not, ``[a-z]`` and
    ``[!a-z]`` are one character. Without a slash in it a glob is about the last segment of a key, with one about
    the whole key; one that ends with a slash means everything below.
    """
    full_pattern = pattern + "**" if pattern.endswith("/") else pattern
    begin = "" if "/" in full_pattern else "(?:.*/)?"
    out, position = [], 0
    while position < len(full_pattern):
        if full_pattern.startswith("**", position):
            out.append(".*")
            position += 2
            continue
        char = full_pattern[position]
        end = full_pattern.find("]", position + 2) if char == "[" else -1
        if end > 0:
            inside = (
                full_pattern[position + 1 : end].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
            )
            out.append(f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]")
            position = end + 1
            continue
        out.append({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)))
        position += 1
    return re.compile(begin + "".join(out) + r"\Z", re.DOTALL)

"""What was looked for and found wrong: values, not exceptions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as the bundle says. ``key`` names the file (or table, or row range); ``what``
    says in words what is wrong; ``expected`` and ``found`` are the two values, empty where there are none.
    """

    key: str
    what: str
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        both = f": expected {self.expected}, found {self.found}" if self.expected or self.found else ""
        return f"{self.key}: {self.what}{both}"

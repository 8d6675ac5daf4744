"""One printable page about a receipt, a certificate or a grant: who, what, when by whose clock, what is not proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from migrate.report.render import render

GOVERNANCE = (
    "Whether locks were lifted: in governance mode whoever has the permission s3:BypassGovernanceRetention can lift a"
    " lock. Only compliance mode has nobody who can."
)
"""What no page about a bundle under Object Lock may keep quiet about."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment, ISO 8601 with its zone; ``what`` happened then, by ``clock``: whose clock says so."""

    what: str
    at: str
    clock: str


@dataclass(frozen=True, slots=True)
class Paper:
    """The page. ``parties``: roles, and who has each. ``facts``: names and values. ``root``: of the bundle, "" where it
    is not named. ``not_verified``: sentences.
    """

    title: str
    sentence: str
    parties: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str]]
    moments: Sequence[Moment]
    not_verified: Sequence[str]
    root: str = ""
    is_good: bool = True
    text: str = ""
    """The signed document itself, byte for byte, where there is one."""
    file: str = ""
    """What the signed document's file is called."""


def paper_page(paper: Paper) -> bytes:
    """Return the page, UTF-8."""
    return render("paper.html", {"title": paper.title, "paper": paper})

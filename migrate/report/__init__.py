"""The report: one page for people that says what a bundle holds, how complete it is, and how to check it."""

from __future__ import annotations

from migrate.report.facts import Checked, Contents, Event, Later, gather
from migrate.report.later import learn
from migrate.report.page import page

__all__ = ["Checked", "Contents", "Event", "Later", "gather", "learn", "page", "sealed_page"]


def sealed_page(contents: Contents) -> bytes:
    """Return the page that is sealed into a bundle: the same bytes for the same contents."""
    return page(gather(contents))

"""Pages for people: what a bundle holds, how complete it is, and how to check it; and by which links it is fetched."""

from __future__ import annotations

from migrate.report.after_seal import add_result, restore_name
from migrate.report.bundle_page import page, prepare_page
from migrate.report.facts import Checked, Contents, Event, Later, gather
from migrate.report.links import Link, Offer, links_page

__all__ = [
    "Checked",
    "Contents",
    "Event",
    "Later",
    "Link",
    "Offer",
    "add_result",
    "gather",
    "links_page",
    "page",
    "prepare_page",
    "restore_name",
    "sealed_page",
]


def sealed_page(contents: Contents) -> bytes:
    """Return the page that is sealed into a bundle: the same bytes for the same contents."""
    return page(gather(contents))

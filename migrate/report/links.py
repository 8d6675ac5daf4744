"""The page of links by which a customer fetches a bundle: what it is, how to fetch all of it, and each file."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from migrate.bundle.bundle_json import BundleInfo
from migrate.report.render import render

SHOWN = 1000
"""How many files have a link on the page; the script and the list have all."""


class Link(Struct, frozen=True):
    """One file and what opens it; ``sha256`` may be empty."""

    key: str
    size_bytes: int
    sha256: str
    link: str


class Offer(Struct, frozen=True):
    """A bundle on offer: to whom, until when, and the names of the files that lie next to the page."""

    info: BundleInfo
    to: str
    expires: str
    script: str
    list: str
    check: str


def links_page(of: Offer, files: Sequence[Link]) -> bytes:
    """Return the page, UTF-8."""
    values = {"title": f"A bundle for {of.to}", "offer": of, "files": files, "shown": SHOWN}
    return render("links.html", values)

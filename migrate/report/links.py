"""The page of links by which a customer fetches a bundle: what it is, how to fetch all of it, and each file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from migrate.bundle.identity import BundleInfo
from migrate.number_text import bytes_words, count_words
from migrate.report.frame import document
from migrate.report.markup import Html, facts, name, table, tag

SHOWN = 1000
"""So many files have a link on the page; the script and the list have all."""


@dataclass(frozen=True, slots=True)
class Link:
    """One file and what opens it; ``sha256`` may be empty."""

    key: str
    size_bytes: int
    sha256: str
    link: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A bundle on offer: to whom, until when, and the names of the files that lie beside the page."""

    info: BundleInfo
    to: str
    expires: str
    script: str
    list: str
    check: str


def links_page(of: Offer, files: Sequence[Link]) -> bytes:
    """Return the page, UTF-8."""
    title = f"A bundle for {of.to}"
    return document(title, _body(of, files, title))


def _body(of: Offer, files: Sequence[Link], title: str) -> Iterator[Html]:
    size = sum(one.size_bytes for one in files)
    yield tag("h1", title)
    yield tag("p", "What left a host, file by file, each with a link that opens it.", class_="soft")
    yield tag(
        "div",
        tag("strong", f"The links end at {of.expires}. "),
        "Whoever has this page can read the bundle until then: keep it to yourself.",
        class_="verdict bad",
    )
    whole = (
        tag("span", "complete", class_="good")
        if of.info.complete
        else tag("span", "INCOMPLETE", class_="bad")
    )
    sources = ", ".join(source.name for source in of.info.sources)
    yield facts(
        [
            ("Bundle", tag("span", name(of.info.id), class_="digest")),
            ("Of", name(sources)),
            ("Sealed as", whole),
            ("Files", count_words(len(files))),
            ("Size", bytes_words(size)),
        ]
    )
    yield tag("h2", "All of it")
    yield tag("p", "With curl, which goes on where it stopped and checks every byte at the end:")
    yield tag("pre", f"sh {shlex.quote(of.script)} DIRECTORY")
    yield tag("p", "Or with aria2, several files at once:")
    yield tag("pre", f"aria2c -j 8 -d DIRECTORY -i {shlex.quote(of.list)}\ncd DIRECTORY && {of.check}")
    yield tag("h2", "File by file")
    if len(files) > SHOWN:
        yield tag(
            "p",
            f"The first {count_words(SHOWN)} of {count_words(len(files))}; the script and the list have all.",
        )
    rows = [
        (
            tag("a", one.key, href=one.link, rel="noreferrer"),
            bytes_words(one.size_bytes),
            tag("span", one.sha256, class_="digest whole"),
        )
        for one in files[:SHOWN]
    ]
    yield table(["File", "Size", "SHA-256"], rows, numbers=(1,))

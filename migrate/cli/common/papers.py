"""Receipts, certificates and grants as pages to print: who, what, when by whose clock, and what is not proved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from migrate.cli.common.signatures import CheckedSignatures
from migrate.custody.documents import Document
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey
from migrate.errors import NotEmptyError
from migrate.number_text import count_words, exact_bytes_words, things
from migrate.report.render import render
from migrate.storage.local.whole_file import write_whole


def _new_page(path: Path | None) -> Path | None:
    """Refuse a page that cannot be made before anything is signed or erased."""
    if path is not None and os.path.lexists(path):
        raise typer.BadParameter(f"{path} exists already; name another file")
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no directory {path.parent}; make it, or name another file")
    return path


PageFile = Annotated[
    Path | None,
    typer.Option("--page", metavar="FILE", callback=_new_page, help="Write it as a page to print, too."),
]

_CHECKED = {
    "quick": "The bytes of the files: only names and sizes were compared.",
    "complete": "The bytes of the files: only names and sizes were compared, and that nothing is missing.",
}
_SIGNER_CLOCK = "the computer of who signed"


GOVERNANCE = (
    "Whether locks were lifted: in governance mode whoever has the permission s3:BypassGovernanceRetention can lift a"
    " lock. Only compliance mode has nobody who can."
)
"""What no page about a bundle under Object Lock may keep quiet about."""


class Moment(Struct, frozen=True):
    """A moment, ISO 8601 with its zone; ``what`` happened then, by ``clock``: whose clock says so."""

    what: str
    at: str
    clock: str


class Paper(Struct, frozen=True):
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


def receipt_paper(
    document: Document,
    signers: Sequence[PublicKey],
    signed: CheckedSignatures,
    acknowledged_by: Sequence[PublicKey] = (),
    *,
    trust: Trust | None = None,
) -> Paper:
    """Return the page about a receipt. ``signed``: who signed the bundle itself, and what timestamps it has;
    ``acknowledged_by``: the senders who have counter-signed the receipt; ``trust``: the list that names keys.
    """
    value = document.value
    findings = int(value["findings_total"])
    state = "complete" if value["complete"] else f"INCOMPLETE: {things(int(value['gaps']), 'item')} missing"
    facts = [
        ("Bundle", str(value["bundle"])),
        ("Where it lies", str(value["location"])),
        ("Size", f"{things(int(value['files']), 'file')}, {exact_bytes_words(int(value['size_bytes']))}"),
        ("By its own account", state),
        ("Checked at level", str(value["level"])),
        ("Damage found", things(findings, "finding") if findings else "none"),
    ]
    givers = [_party(public, name or public.name) for public, name in signed.by]
    parties = [
        *(("Received and signed by", _party(public, _name_of(public, trust))) for public in signers),
        *(("Bundle signed by", giver) for giver in givers or ["nobody"]),
        *(
            ("Acknowledged by the sender", _party(public, _name_of(public, trust)))
            for public in acknowledged_by
        ),
    ]
    moments = [Moment("receipt signed", _time_of(document), _SIGNER_CLOCK)]
    if acknowledged_by:
        moments.append(Moment("receipt acknowledged", _utc(datetime.now(UTC)), _SIGNER_CLOCK))
    not_verified = [
        *filter(None, [_CHECKED.get(str(value["level"]))]),
        "Whether the sources held more than the bundle says of itself.",
        "Whether a restored database or bucket is the same: moveout verify --against compares them.",
        "Who holds the keys named here: a name next to a key proves nothing.",
        GOVERNANCE,
    ]
    return Paper(
        title="Receipt, acknowledged" if acknowledged_by else "Receipt",
        sentence=document.about,
        parties=parties,
        facts=facts,
        moments=[*moments, *_stamps(signed)],
        not_verified=not_verified,
        root=document.root,
        is_good=not findings and bool(value["complete"]),
        text=document.data.decode(),
        file=document.key,
    )


def certificate_paper(document: Document, signers: Sequence[PublicKey]) -> Paper:
    """Return the page about an erasure."""
    value = document.value
    size = exact_bytes_words(int(value["size_bytes"]))
    facts = [
        ("Bundle", str(value["bundle"])),
        ("Erased from", str(value["location"])),
        ("Removed", f"{things(int(value['versions']), 'version')} of files, {size}"),
        ("Delete markers", count_words(int(value["delete_markers"]))),
        ("Unfinished uploads", count_words(int(value["uploads"]))),
        ("Kept", str(value["kept"])),
    ]
    if value["override"]:
        facts.append(("Erased although", "; ".join(map(str, value["against"]))))
        facts.append(("Reason given", str(value["override"])))
    return Paper(
        title="Certificate of erasure",
        sentence=document.about,
        parties=[("Erased and certified by", _party(public, public.name)) for public in signers],
        facts=facts,
        moments=[Moment("certificate signed", _time_of(document), _SIGNER_CLOCK)],
        not_verified=[*map(str, value["not_verified"]), GOVERNANCE],
        root=document.root,
        is_good=not value["override"],
        text=document.data.decode(),
        file=document.key,
    )


def grant_paper(
    location: str, to: str, way: Sequence[tuple[str, str]], until: datetime, signer: PublicKey
) -> Paper:
    """Return the page about a grant. ``way``: names and values that say by what the bundle can be read. No secret and
    no link is on it.
    """
    end = f"{until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return Paper(
        title="Grant",
        sentence=f"{to} may read the bundle at {location}, and nothing else, until {end}",
        parties=[("Granted by", _party(signer, signer.name)), ("Granted to", to)],
        facts=[("May", "list and read this bundle"), ("Bundle at", location), *way],
        moments=[
            Moment("granted", _utc(datetime.now(UTC)), _SIGNER_CLOCK),
            Moment("ends", _utc(until), "the storage server"),
        ],
        not_verified=[
            "Whether it works, and opens nothing else: moveout grant test tries a credential.",
            "Who has it: whoever has the file that was handed over can read the bundle until then.",
            "What was copied under it: to revoke the grant takes no copy back.",
            GOVERNANCE,
        ],
    )


def write_page(path: Path, paper: Paper) -> None:
    """Write a page that is not there yet. Raises errors of ``migrate.errors``."""
    if os.path.lexists(path):
        raise NotEmptyError(f"{path} exists already", next_step="name another: --page FILE")
    write_whole(path, paper_page(paper), crash_point="paper.page")


def _name_of(public: PublicKey, trust: Trust | None) -> str:
    """Return what a list calls the owner of a key, else what the key calls itself."""
    return (trust.name(public) if trust else None) or public.name


def _party(public: PublicKey, name: str) -> str:
    return f"{name}, key {public.fingerprint}" if name else f"key {public.fingerprint}"


def _stamps(signed: CheckedSignatures) -> list[Moment]:
    """Return the timestamps of the bundle (RFC 3161), or that there is none."""
    if not signed.stamps:
        return [Moment("timestamp of an authority (RFC 3161)", "none", "nobody: there is no such timestamp")]
    return [
        Moment(
            f"the bundle's root hash was there, says {key}",
            _utc(stamp.moment),
            f"RFC 3161 timestamp authority {stamp.authority}",
        )
        for key, stamp in signed.stamps
    ]


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _time_of(document: Document) -> str:
    return _utc(document.moment) if document.moment else "not stated"

"""Opens the bundle that a command reads, and finds the source that the user means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.cli.common.session import Session
from migrate.cli.common.sources import load_case
from migrate.errors import UsageError
from migrate.storage.registry import open_location

Source = Annotated[
    str | None, typer.Option("--source", metavar="NAME", help="Which source, where the bundle has several.")
]


def open_bundle(session: Session, words: Sequence[str], case: Path | None) -> tuple[BundleReader, list[str]]:
    """Return the bundle and the words after its location; with a case file the location is the case's."""
    loaded = load_case(case)
    from_case = (loaded.transfer_to or loaded.bundle) if loaded else None
    arguments = list(words)
    location = from_case or (Endpoint(arguments.pop(0)) if arguments else None)
    if location is None:
        raise UsageError(
            "no location is named", next_step="give a directory or s3://bucket/prefix, or a case file with -c"
        )
    throttle = session.throttle(loaded.bwlimit if loaded else None)
    store = open_location(
        location.url,
        secrets=location.reveal(),
        bwlimit=throttle,
        note=session.progress.note,
        cancellation=session.cancellation,
    )
    return BundleReader(store), arguments


def source_name(reader: BundleReader, name: str | None) -> str:
    """Return the source that is meant: the only one, unless one is named. Raises ``UsageError``."""
    known = list(reader.sources)
    if name is not None:
        return reader.info.source(name).name
    if len(known) != 1:
        raise UsageError(f"the bundle has {', '.join(known)}", next_step="say which: --source NAME")
    return known[0]

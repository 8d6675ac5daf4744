"""``moveout seal``: what an export left at a location becomes a bundle, without its sources."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from migrate.cli import app
from migrate.cli.common.options import CaseFile, one_location
from migrate.cli.common.session import Session, export_workers
from migrate.cli.common.signing_keys import SigningOptions, custody_of
from migrate.cli.common.sources import load_case
from migrate.cli.common.verb import verb
from migrate.cli.custody.sign import sealed_by
from migrate.cli.progress.progress_reports import reported
from migrate.cli.summaries.export_summary import Exported
from migrate.export.run import seal_unasked


@verb(app, "seal", workers=True, bwlimit=True, examples=("seal bundle", "seal -c moveout.toml"))
def seal_command(
    session: Session,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="LOCATION", help="Where the unfinished export lies.")
    ] = None,
    *,
    case: CaseFile = None,
    signing: SigningOptions,
) -> Exported:
    """Seal an unfinished export without its sources.

    For sources that are gone. The bundle is complete only if every source was finished and all counts agree;
    otherwise it is INCOMPLETE, and names what is missing. A later export can continue it.
    """
    loaded = load_case(case)
    location = one_location(words or [], loaded.bundle if loaded else None)
    signers = signing.load(loaded)
    store = session.store(location)
    started = time.monotonic()
    workers = session.workers(loaded, default=export_workers())
    with reported(session, "export", location, loaded):  # in place of what that says of itself still
        summary = seal_unasked(store, workers=workers, progress=session.progress)
    signed = sealed_by(store, signers, custody_of(loaded).timestamp)
    detailed = session.is_detailed(len(summary.sources))
    return Exported(summary, time.monotonic() - started, signed, detailed=detailed)

"""``moveout run``: the whole move in order, skipping what is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from migrate.cli import app
from migrate.cli.common.cluster_options import ClusterOptions
from migrate.cli.common.options import AllowEmpty, Create
from migrate.cli.common.session import Session
from migrate.cli.common.sources import load_case, with_empty_allowed
from migrate.cli.common.verb import verb
from migrate.cli.moves.move_summary import MoveResult
from migrate.cli.moves.whole_move import run_case
from migrate.cli.progress.announcements import StatusPage
from migrate.cli.restore import RestoreOptions
from migrate.errors import UsageError


@verb(
    app,
    "run",
    workers=True,
    bwlimit=True,
    examples=("run -c moveout.toml", "run -c moveout.toml --status-page status.html"),
)
def run_command(
    session: Session,
    case: Annotated[
        Path, typer.Option("--case", "-c", metavar="CASE", help="The case file, moveout.toml.")
    ] = Path("moveout.toml"),
    *,
    create: Create = False,
    allow_empty: AllowEmpty = False,
    cluster: ClusterOptions,
    status_page: StatusPage = None,
    keep_following: Annotated[
        bool,
        typer.Option("--keep-following", help="Follow databases until Ctrl-C or moveout cutover."),
    ] = False,
) -> MoveResult:
    """Do the whole move, and skip what is done.

    Examines, plans, exports, transfers, verifies, restores, and compares what was restored. Databases with follow =
    true are followed until they have caught up; moveout cutover makes the switch.
    """
    loaded = load_case(case)
    if loaded is None or loaded.bundle is None or not loaded.sources:
        raise UsageError(
            f"{case} must say [[source]] and [bundle]", next_step="see what `moveout init` writes"
        )
    if allow_empty:
        loaded = replace(loaded, sources=with_empty_allowed(loaded.sources))
    options = RestoreOptions(scheduler=cluster.scheduler, create=create)
    return run_case(session, loaded, options, status_page=status_page, keeps_following=keep_following)

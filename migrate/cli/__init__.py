"""The command ``moveout``: parse, call, print, exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from migrate import __version__

app = typer.Typer(
    name="moveout",
    help="Databases and object storage leave a host, whole and provably, before the deadline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moveout {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Databases and object storage leave a host, whole and provably, before the deadline."""


def main() -> None:
    """Run the command line."""
    from migrate.cli import export, init, plan, restore, run, status, transfer, verify  # noqa: F401, PLC0415

    app()

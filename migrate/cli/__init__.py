"""The command ``moveout``: parse, call, print, exit code."""

from __future__ import annotations

import gc
import importlib
import os
import signal
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from migrate import heap, software
from migrate.errors import INTERRUPTED
from migrate.errors import UsageError as MoveoutUsageError

_KEEP_MEMORY = ("MIMALLOC_PURGE_DELAY", "1000")
"""So many milliseconds Arrow's allocator keeps what is free, not 10: blocks come and go faster than that, and to get
their pages from the system again, each of them cleared, took a fourteenth of the time. Read when pyarrow is imported.
"""

VERBS = {
    "init": "init",
    "plan": "plan",
    "export": "export",
    "seal": "seal",
    "transfer": "transfer",
    "verify": "verify",
    "restore": "restore",
    "sync": "sync",
    "run": "run",
    "report": "report",
    "status": "status",
    "clean": "transfer",
    "ls": "browse",
    "get": "browse",
    "keys": "keys",
    "sign": "sign",
    "custody": "custody",
    "hold": "hold",
    "grant": "grant",
    "receive": "handover",
    "acknowledge": "handover",
    "audit": "audit",
    "clock": "clock",
    "erase": "erase",
    "prove": "proof",
    "check-proof": "proof",
}
"""Each command, in the order of the help, and the module that has it."""


_UsageError: Any = typer.BadParameter.__base__
"""Of words that no command has; typer has no public name for it."""


class _Verbs(TyperGroup):
    """Imports a verb's module when the verb is asked for: half of the libraries are needed by half of the verbs. Who
    asked for JSON gets that too for words that no command has.
    """

    def invoke(self, ctx: Any) -> Any:
        words = [*ctx._protected_args, *ctx.args]  # noqa: SLF001  the command's name and what follows it
        try:
            return super().invoke(ctx)
        except _UsageError as exc:
            if "--json" in words:
                from migrate.cli.session import print_error  # noqa: PLC0415  it needs this module

                where = exc.ctx.command_path if exc.ctx else "moveout"
                code, said = MoveoutUsageError.code, exc.format_message()
                print_error(words[0], exc.exit_code, code, said, f"{where} -h")
            raise

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in VERBS and cmd_name not in self.commands:
            try:
                importlib.import_module(f"migrate.cli.{VERBS[cmd_name]}")
            except KeyboardInterrupt:
                typer.echo("moveout: stopped\n→ run the same command again: nothing was begun", err=True)
                raise typer.Exit(INTERRUPTED) from None
            self.commands.update(typer.main.get_group(app).commands)
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    name="moveout",
    cls=_Verbs,
    help="Databases and object storage leave a host, whole and provably, before the deadline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(software())
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Databases and object storage leave a host, whole and provably, before the deadline."""


def _stop(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line."""
    # Millions of rows and objects pass and make few cycles: the collector, which looks at all that is alive
    # after each 700 of them, took a tenth of the time.
    gc.set_threshold(100_000, 20, 50)
    os.environ.setdefault(*_KEEP_MEMORY)
    heap.share()
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)
    try:
        app()
    finally:
        # The process ends: its last collection, of all modules' objects, would take a fifth of a second.
        gc.freeze()

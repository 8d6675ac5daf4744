"""The command ``moveout``: parse, call, print, exit code."""

# ruff: noqa: E402  imports are what the first statement is about

from __future__ import annotations

import codecs
import gc

# Millions of rows and objects pass and make few cycles: the collector, which looks at all that is alive after each 700
# of them, took a tenth of the time; of the imports that follow, too.
gc.set_threshold(100_000, 20, 50)

import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.completion import get_completion_inspect_parameters, install_callback, show_callback
from typer.core import TyperCommand, TyperGroup

from exporters import _rows
from migrate import software
from migrate.errors import INTERRUPTED
from migrate.errors import UsageError as MoveoutUsageError
from migrate.runtime import malloc

_KEEP_MEMORY = ("MIMALLOC_PURGE_DELAY", "10000")
"""How many milliseconds Arrow's own allocator keeps what is free, not 10: blocks come and go faster than that, row
groups within seconds. To get their pages from the system again, each of them cleared, takes 3 µs a page in a virtual
machine. Read when pyarrow is imported.
"""

_ASCII = {"→": "->", "…": "...", "─": "-", "━": "="}

SECTIONS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Prepare": {
        "init": ("init", "Write a case file."),
        "discover": ("discover", "List what servers hold, and write the case file."),
        "doctor": ("doctor", "Say what would go wrong, and how to repair it."),
        "plan": ("plan", "Forecast how long the move takes."),
    },
    "Move": {
        "run": ("run", "Do the whole move, and skip what is done."),
        "export": ("export", "Write and seal a bundle of the sources."),
        "seal": ("seal", "Seal an unfinished export without its sources."),
        "transfer": ("transfer", "Copy a sealed bundle to another location."),
        "restore": ("restore", "Restore databases and buckets from a bundle."),
        "follow": ("follow", "Apply what the sources have written since their export."),
        "resync": ("follow", "Read followed tables again, while the source is written to."),
        "sync": ("sync", "Copy a bucket or a database; repeated, only what has changed."),
        "cutover": ("cutover", "Switch to the new databases, if both sides are equal."),
        "clean": ("clean", "Remove what interrupted runs left behind, after asking."),
    },
    "Look": {
        "status": ("status", "Say what is done and what is left."),
        "report": ("report", "Write a report about a bundle, with what is known now."),
        "ls": ("ls", "List what is in a bundle: tables, buckets, their objects."),
        "get": ("get", "Read single objects, or rows of a table, out of a bundle."),
        "sql": ("sql", "Query a bundle's tables with SQL, by DuckDB."),
    },
    "Prove": {
        "verify": ("verify", "Check a bundle, or compare it with live databases and buckets."),
        "keys": ("custody.keys", "Make and show keys to sign with."),
        "sign": ("custody.sign", "Sign a sealed bundle."),
        "audit": ("custody.audit", "Check samples of a signed bundle, and sign the result."),
        "prove": ("custody.prove", "Write a proof that an object, or a row, is in the bundle."),
        "check-proof": ("custody.check_proof", "Check a proof without the bundle."),
    },
    "Hand over": {
        "custody": ("custody.log", "Read and add to the record of who did what to a bundle."),
        "hold": ("custody.hold", "Protect a bundle, or its sources, from changes for a time."),
        "grant": ("custody.grant", "Give read access to one bundle, for a time."),
        "receive": ("custody.receive", "Verify a bundle, then sign a receipt for it."),
        "acknowledge": ("custody.acknowledge", "Counter-sign the customer's receipt for a bundle."),
        "clock": ("custody.clock", "Say of each obligation whether it is met, due or breached."),
        "erase": ("custody.erase", "Remove a bundle for good, and sign a certificate of it."),
    },
}
"""The commands by the sections of the help, each with its module and its help in one line: the list of commands and
shell completion import none of these modules.
"""
VERBS = {name: verb for section in SECTIONS.values() for name, verb in section.items()}
_HELP = "help"
"""``moveout help COMMAND`` is ``moveout COMMAND --help``."""
_CUTS = (":", "=")
_EPILOG = """\b
Exit codes:
  0  complete                           6    damage, or a difference
  1  unknown error                      7    something is not there
  2  wrong usage; nothing was touched   8    no space, or too little
  3  finished; something is missing     9    the deadline will be missed
  4  not allowed                        130  interrupted
  5  unreachable, or busy

\b
Begin with moveout init: it asks what leaves, and writes moveout.toml. Then
moveout doctor says what would go wrong, and moveout run does the whole move.
Passwords come from PGPASSWORD or ~/.pgpass, MYSQL_PWD or ~/.my.cnf, and AWS
profiles. After any failure, repeat the same command: it continues.
moveout help COMMAND explains one command."""


_UsageError: Any = typer.BadParameter.__base__
"""Raised for words that no command has; typer has no public name for it."""


class _Verbs(TyperGroup):
    """All commands. Each is a stub with a name and a line of help until it is called: then its module is imported.
    Errors in the command line are JSON where ``--json`` is given.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._stubs = {name: TyperCommand(name, help=text) for name, (_, text) in VERBS.items()}
        self.commands = {**self._stubs, **self.commands}

    def _main_shell_completion(self, *args: Any, **options: Any) -> None:
        _join_bash_words()
        try:
            super()._main_shell_completion(*args, **options)
        except (KeyboardInterrupt, typer.Exit):  # Ctrl-C while the shell waits for it
            sys.exit(INTERRUPTED)

    def invoke(self, ctx: Any) -> Any:
        arguments = [*ctx._protected_args, *ctx.args]  # noqa: SLF001  the command's name and what follows it
        try:
            return super().invoke(ctx)
        except _UsageError as exc:
            from migrate.cli.common.usage_errors import explain  # noqa: PLC0415  only who mistypes waits for it

            explain(exc, arguments)
            if "--json" in arguments:
                from migrate.cli.common.json_output import print_error  # noqa: PLC0415  only who mistypes waits for it

                command_path = exc.ctx.command_path if exc.ctx else "moveout"
                code, message = MoveoutUsageError.code, exc.format_message()
                print_error(arguments[0], exc.exit_code, code, message, f"{command_path} -h")
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] == _HELP:
            args = [*args[1:], "--help"] if len(args) > 1 else args
        name = args[0] if args else ""
        if name == _HELP:
            typer.echo(ctx.get_help())
            raise typer.Exit
        if name in self._stubs and self.commands[name] is self._stubs[name]:
            self.commands[name] = _load(name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  the signature is typer's
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(200)) for name in names])


def _join_bash_words() -> None:
    """Put together what bash has cut at ``:`` and ``=`` before it asks for completions, such as an ``s3://`` URL."""
    words, current = os.environ.get("COMP_WORDS", ""), os.environ.get("COMP_CWORD", "")
    if "\n" not in words or not current.isdigit():
        return
    joined: list[str] = []
    position = 0
    for number, word in enumerate(words.split("\n")):
        is_cut = bool(joined) and (word[:1] in _CUTS or joined[-1][-1:] in _CUTS)
        joined[-1:] = [joined[-1] + word] if is_cut else [*joined[-1:], word]
        if number <= int(current):
            position = len(joined) - 1
    os.environ |= {"COMP_WORDS": "\n".join(joined), "COMP_CWORD": str(position)}


def _load(name: str) -> Any:
    """Import a command's module and return the command."""
    try:
        importlib.import_module(f"migrate.cli.{VERBS[name][0]}")
    except KeyboardInterrupt:
        typer.echo("moveout: stopped\n→ run the same command again: nothing was begun", err=True)
        raise typer.Exit(INTERRUPTED) from None
    # Modules live to the end: a collection that looked at all their objects took a twentieth of a second.
    gc.freeze()
    # Its module may import those of others, and to build a command takes some milliseconds.
    alone = typer.Typer(rich_markup_mode=app.rich_markup_mode)
    alone.registered_commands = [info for info in app.registered_commands if info.name == name]
    alone.registered_groups = [info for info in app.registered_groups if info.name == name]
    return typer.main.get_group(alone).commands[name]


app = typer.Typer(
    name="moveout",
    cls=_Verbs,
    help="Move databases and buckets off a host before a deadline, and prove that nothing is missing.",
    no_args_is_help=True,
    add_completion=False,  # typer's own options take no shell: they guess it from the process above
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


get_completion_inspect_parameters()  # it registers the shells
_ZSH_FIRST_TAB = '\n[[ $zsh_eval_context[-1] == loadautofunc ]] && _moveout_completion "$@"\n'
"""zsh loads the file at the first Tab, as the function that completes: typer's file then only defines another one."""


class Shell(StrEnum):
    """The shells that are completed for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def _install_completion(ctx: typer.Context, param: typer.CallbackParam, shell: Shell | None) -> None:
    try:
        install_callback(ctx, param, shell)
    finally:
        path = Path.home() / ".zfunc/_moveout"
        if shell is Shell.ZSH and path.exists():
            path.write_text(path.read_text(encoding="utf-8") + _ZSH_FIRST_TAB, encoding="utf-8")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"{software()}\nrows are read by {_rows.row_path()} code")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    _install: Annotated[
        Shell | None,
        typer.Option(
            "--install-completion",
            callback=_install_completion,
            metavar="SHELL",
            help="Install completion for bash, zsh or fish.",
        ),
    ] = None,
    _show: Annotated[
        Shell | None,
        typer.Option(
            "--show-completion",
            callback=show_callback,
            metavar="SHELL",
            help="Print the completion script.",
        ),
    ] = None,
) -> None:
    """Move databases and buckets off a host before a deadline, and prove that nothing is missing."""


def _stop(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line."""
    # Libraries warn by logging of what they then raise; Python would print that to stderr.
    logging.getLogger().addHandler(logging.NullHandler())
    os.environ.setdefault(*_KEEP_MEMORY)
    malloc.share()
    _open_streams()
    _have_home()
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)
    try:
        app()
    finally:
        # The process ends: its last collection, of all modules' objects, would take a fifth of a second.
        gc.freeze()
        _drop_unwritten()


def _have_home() -> None:
    """Let ``~`` be the root, as container runtimes do, where there is no HOME and the user has no entry."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"


def _open_streams() -> None:
    """Give a closed stream the null device: else the next file would get its number, and what libraries print."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - it stays open
    codecs.register_error("moveout", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="moveout")


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what stands for a character that an old locale cannot show: our own signs in ASCII, others as escapes."""
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] in _ASCII:
        return _ASCII[error.object[error.start]], error.start + 1
    return codecs.backslashreplace_errors(error)


def _drop_unwritten() -> None:
    """Drop what stdout and stderr did not take, after the error was reported: Python would end with 120 for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

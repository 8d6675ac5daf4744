"""Adds to errors in the command line what to type instead."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from migrate.case.secrets import hide_url_passwords, redact

_DESTINATION_IS_ARGUMENT = ("transfer", "restore", "sync")
"""Commands whose destination is an argument; that of others is the option ``--to``."""
_MEANT = {
    "evacuate": "It is a target of make: moveout run -c moveout.toml",
    "completion": "moveout --install-completion bash, zsh or fish",
    "version": "moveout --version prints it",
}
"""What people type that is no command, and what they mean."""


def explain(error: Any, arguments: Sequence[str]) -> None:
    """Add to an error in the command line what has to be typed."""
    context = error.ctx
    if error.message:
        error.message = hide_url_passwords(error.message)
    if context is None:
        return
    if hasattr(error, "param_type"):
        error.message = _required(error.param, context, arguments)
    elif getattr(error, "option_name", "") == "--to" and arguments[0] in _DESTINATION_IS_ARGUMENT:
        error.possibilities = None
        error.message = f"{error.message}. Where it goes follows without it: {_without_to(arguments)}"
    elif context.parent is None and (meant := _MEANT.get(arguments[0] if arguments else "")):
        error.message = f"No such command {arguments[0]!r}. {meant}"
    elif context.parent is not None and error.message.startswith("No such command"):
        sentence, _, word = error.message.partition(". Did you mean ")
        if not word or os.path.exists(sentence.partition("'")[2].rstrip("'")):  # noqa: PTH110  a bundle, and no typing error
            names = ", ".join(context.command.commands)
            error.message = (
                f"{sentence.rstrip('.')}.\n  It is one of {names}: {context.command_path} COMMAND …"
            )
    elif error.message.startswith("Got unexpected extra argument") and arguments[0] in {"run", "cutover"}:
        error.message += _run_words(arguments)
    else:
        _suggest_option(error)


def _suggest_option(error: Any) -> None:
    """Suggest similar options for one that does not exist."""
    if not getattr(error, "possibilities", None):
        return
    # The dashes, which all have in common, make none similar.
    names = [name.lstrip("-") for name in error.possibilities]
    similar = get_close_matches(error.option_name.lstrip("-"), names)
    error.possibilities = None
    if similar:
        options = ", ".join(f"'--{name}'" for name in sorted(similar))
        error.message = f"{error.message}. Did you mean {options}?"


def _run_words(arguments: Sequence[str]) -> str:
    """Return how a case file is given to a command that takes nothing else, or how one is made of URLs."""
    if file := next((word for word in arguments if word.endswith(".toml")), ""):
        place = arguments.index(file)
        return f"\n  A case file: {shlex.join(['moveout', *arguments[:place], '-c', *arguments[place:]])}"
    return "\n  It takes a case file. moveout discover URL … --to moveout.toml writes one."


def _required(first: Any, context: Any, arguments: Sequence[str]) -> str:
    """Return a line for each option that a command needs and did not get; for an argument its line alone."""
    given = {word.partition("=")[0] for word in arguments}
    missing = [
        parameter.get_help_record(context)
        for parameter in context.command.params
        if parameter is first
        or (parameter.required and parameter.opts[0].startswith("-") and not {*parameter.opts} & given)
    ]
    width = max(len(names) for names, _ in missing)
    return "\n" + "\n".join(f"  {names.ljust(width)}  {text}" for names, text in missing)


def _without_to(arguments: Sequence[str]) -> str:
    words = [word.removeprefix("--to=") for word in arguments if word != "--to"]
    return shlex.join(["moveout", *map(redact, words)])

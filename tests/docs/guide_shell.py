"""Runs the commands of a guide as its reader does, and saves what can be saved."""

import os
import shlex
import subprocess

from tests.cli.conftest import Ended, call

OPERATORS = set("|&;<>()$`")


def run_text(text, *, folder, env):
    """Run a text of shell commands until one fails. Simple commands of moveout run within this process, as starting it
    takes longer than what most of them do; bash runs everything else. In ``env``, None removes a variable.
    """
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line]
    if not all(_is_simple(line) for line in lines):
        return _bash(text, folder, env)
    out = err = ""
    for line in lines:
        program, *words = shlex.split(line)
        ended = call(*words, env=env, cwd=folder) if program == "moveout" else _bash(line, folder, env)
        out, err = out + ended.out, err + ended.err
        if ended.code:
            return Ended(ended.code, out, err)
    return Ended(0, out, err)


def _is_simple(line):
    """Tell whether a line is one command without redirection, variables and the like."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    return words[:1] in (["moveout"], ["psql"]) and not any(set(word) <= OPERATORS for word in words)


def _bash(text, folder, env):
    variables = {name: value for name, value in (os.environ | env).items() if value is not None}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder, env=variables, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)

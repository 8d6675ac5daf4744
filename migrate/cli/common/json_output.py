"""What a command prints with ``--json``: one object on stdout, for a result or for an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from migrate.cli.common.terminal import data_output
from migrate.errors import OK

JSON_VERSION = 1
_NO_FACTS: Mapping[str, Any] = {}


def print_result(command: str, exit_code: int, result: Mapping[str, Any]) -> None:
    """Print a result as one object."""
    _print_json(command, exit_code, {"result": result})


def print_error(
    command: str,
    exit_code: int,
    code: str,
    message: str,
    next_step: str,
    facts: Mapping[str, Any] = _NO_FACTS,
) -> None:
    """Print an error as one object, with further facts."""
    error = {"code": code, "message": message, "next": next_step, **facts}
    _print_json(command, exit_code, {"error": error})


def _print_json(command: str, exit_code: int, body: dict[str, Any]) -> None:
    head = {"moveout": JSON_VERSION, "command": command, "ok": exit_code == OK, "exit_code": exit_code}
    out = data_output()
    text = json.dumps(head | body, ensure_ascii=False, default=_plain)
    # What is no character, as in a text that somebody else wrote, is escaped as JSON has it.
    out.write(text.encode(errors="backslashreplace").decode() + "\n")
    out.flush()


def _plain(value: object) -> str:
    """Return what JSON has no word for: moments in ISO 8601, all else as it is printed."""
    return value.isoformat() if isinstance(value, datetime) else str(value)

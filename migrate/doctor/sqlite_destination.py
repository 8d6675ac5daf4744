"""Examines a path as a destination of SQLite databases: whether it is free, and can be written."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from exporters.doctor import Examination, ExamineRequest, Finding, Fix
from exporters.errors import GoneError
from exporters.sqlite.address import parse_url

_NOTHING = "Nothing of it comes up."


def examine(request: ExamineRequest) -> Examination:
    """Examine a destination. See ``exporters.doctor.Examine``."""
    path = parse_url(request.url).path
    findings = [*_directory(request, path.parent), *_contents(path)]
    facts = {
        "server": "SQLite",
        "TLS": "a file",
        "rights": "missing" if any(finding.check == "rights" for finding in findings) else "all",
        "ready": "not empty" if any(finding.check == "contents" for finding in findings) else "empty",
    }
    return Examination(facts, findings)


def _directory(request: ExamineRequest, directory: Path) -> Iterator[Finding]:
    existing = next(path for path in (directory, *directory.parents) if path.is_dir())
    may_write = os.access(existing, os.W_OK | os.X_OK)
    if existing != directory:
        fix = Fix("shell", f"mkdir -p {shlex.quote(str(directory))}")
        missing = GoneError(f"there is no directory {directory}")
        yield request.missing(str(directory), missing, fix, may_create=may_write)
    elif not may_write:
        fix = Fix("shell", f"chmod u+rwx {shlex.quote(str(directory))}")
        yield Finding("blocks", "rights", str(directory), "this account may not write there", _NOTHING, fix)
    if not shutil.disk_usage(existing).free:
        advice = Fix("advice", "make room, or name another directory")
        yield Finding("blocks", "room", str(existing), "no room is left there", _NOTHING, advice)


def _contents(path: Path) -> Iterator[Finding]:
    if any(path.iterdir()) if path.is_dir() else path.exists() and path.stat().st_size:
        advice = Fix("advice", "name a path that does not exist yet, or restore with --merge")
        problem = "it exists, and is not empty"
        consequence = "A restore refuses it, unless an earlier run wrote it."
        yield Finding("blocks", "contents", str(path), problem, consequence, advice)

"""Examines SQLite files as a source: whether they can be read, whether their schema is damaged, and whether there is
room for the copy that is read.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from exporters.api import Gap
from exporters.doctor import Examination, ExamineRequest, Finding, Fix, count_words
from exporters.errors import SourceError, SourceUsageError
from exporters.sqlite.address import SqliteAddress, parse_url
from exporters.sqlite.catalog import check_library
from exporters.sqlite.errors import is_of_damage
from exporters.sqlite.files.backup import connected
from exporters.sqlite.files.directory import find


def examine(request: ExamineRequest) -> Examination:
    """Examine a file, or a directory of files. See ``exporters.doctor.Examine``."""
    check_library()
    address = parse_url(request.url)
    if not address.path.is_dir():
        files = [address]
        findings = list(_damage(address))
    else:
        listed = find(address.path)
        files = [address.below(name) for name in listed.databases]
        if not files:
            raise SourceUsageError(
                f"there is no SQLite database in {address.path}", next_step="check the path"
            )
        findings = list(map(_not_taken, listed.gaps))
        findings += [finding for file in files for finding in _unreadable(file)]
    size_bytes = sum(_size(file) for file in files)
    findings += _room(size_bytes)
    if request.follow:
        advice = Fix("advice", "nothing has to be done: moveout follow compares the tables")
        findings.append(request.no_log(str(address.path), "SQLite has no log of changes", advice))
    facts = {
        "server": f"SQLite, {len(files)} files" if len(files) > 1 else "SQLite",
        "TLS": "a file",
        "rights": count_words(sum(1 for finding in findings if finding.check == "rights"), "missing"),
        "snapshot": "a copy",
        "changes": "no log",
        "clock": "equal",
    }
    return Examination(facts, findings, size_bytes=size_bytes)


def _unreadable(address: SqliteAddress) -> Iterator[Finding]:
    try:
        yield from _damage(address)
    except SourceError as exc:
        yield _skipped(str(address.path), str(exc), exc.next_step)


def _damage(address: SqliteAddress) -> Iterator[Finding]:
    """Yield a finding where the schema is damaged. Raises ``SourceError`` where the file cannot be read."""
    try:
        with connected(address) as connection:
            is_damaged = bool(connection.execute("PRAGMA writable_schema").fetchone()[0])
        problem = "a part of its schema cannot be read"
    except SourceError as exc:
        if not is_of_damage(exc):
            raise
        is_damaged, problem = True, str(exc)
    if is_damaged:
        consequence = "What can be read of it is exported, and the file as it is."
        advice = Fix("advice", "bring a backup of it along, if there is one")
        yield Finding("loses", "damage", str(address.path), problem, consequence, advice)


def _not_taken(gap: Gap) -> Finding:
    """Return the finding about what lies in a directory and is not exported. What is no database is only named."""
    if gap.disposition == "failed":
        return _skipped(gap.item, gap.reason)
    advice = Fix(
        "advice", "copy it in another way, where it is needed; an encrypted database is decrypted first"
    )
    return Finding("info", "files", gap.item, gap.reason, "It is not exported.", advice)


def _skipped(name: str, reason: str, advice: str = "") -> Finding:
    fix = Fix("advice", advice or "let this account read it, or take it out of the directory")
    return Finding("loses", "rights", name, reason, "It is not exported.", fix)


def _room(size_bytes: int) -> Iterator[Finding]:
    """Yield a finding where the temporary directory has no room for a copy."""
    directory = Path(tempfile.gettempdir())
    free = shutil.disk_usage(directory).free
    if free < size_bytes:
        yield Finding(
            "blocks",
            "room",
            str(directory),
            f"it has {free:,} bytes free, and a copy of the databases needs {size_bytes:,}",
            "The export refuses to begin.",
            Fix("advice", "set TMPDIR to a directory with as much room as the files have"),
        )


def _size(address: SqliteAddress) -> int:
    files = (address.path, address.companion("-wal"))
    return sum(path.stat().st_size for path in files if path.exists())

"""All fixes as scripts, one a server: SQL, commands, and policies of IAM. Nothing is executed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from exporters.doctor import Finding, Fix
from migrate.doctor import iam
from migrate.errors import UsageError

_HERE = "this-machine"
_ENDS = {"sql": ".sql", "shell": ".sh", "iam": ".json", "advice": ".txt"}


class FixScript(Struct, frozen=True):
    """A script, and the name of the file that it goes into."""

    name: str
    text: str


def make_scripts(findings: Iterable[Finding]) -> list[FixScript]:
    """Return the scripts that mend the findings, each statement once, in the order of the findings."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.fix is not None:
            groups.setdefault(_file_name(finding.fix), []).append(finding)
    return [
        FixScript(name, _WRITERS[name[name.rindex(".") :]](group)) for name, group in sorted(groups.items())
    ]


def write_scripts(directory: Path, scripts: Sequence[FixScript]) -> list[Path]:
    """Write the scripts into a directory, which is made. Raises ``UsageError``."""
    paths = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for script in scripts:
            path = directory / script.name
            path.write_text(script.text, encoding="utf-8")
            paths.append(path)
    except OSError as exc:
        raise UsageError(
            f"{directory} cannot be written: {exc.strerror}", next_step="name another directory"
        ) from exc
    return paths


def _file_name(fix: Fix) -> str:
    server = re.sub(r"[^A-Za-z0-9._-]+", "-", fix.server).strip("-.") or _HERE
    return server + _ENDS[fix.kind]


def _note(finding: Finding, mark: str) -> str:
    """Return a comment that says what a statement mends; on one line whatever a name holds."""
    return f"{mark} {finding.object}: {finding.problem}".replace("\r", " ").replace("\n", " ")


def _sql(findings: Sequence[Finding]) -> str:
    """Return SQL, by database: a command of psql stands before what belongs to another one."""
    lines = ["-- Read it first. Then run it as an administrator of this server.", ""]
    by_database: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.fix is not None:
            by_database.setdefault(finding.fix.database, []).append(finding)
    for database, group in by_database.items():
        # A command of psql ends with its line, and the next one may be a command, too.
        if not database.isprintable():
            lines += [
                "-- No script can name this database. Connect to it by hand, and run what doctor prints.",
                "",
            ]
            continue
        if database:
            lines.append(f"\\connect {_psql_name(database)}")
        lines += _statements(group, "--")
    return "\n".join(lines)


def _statements(findings: Sequence[Finding], mark: str) -> list[str]:
    """Return each fix once, under a comment. What nothing is missing without is a comment itself."""
    lines: list[str] = []
    texts: set[str] = set()
    for finding in sorted(findings, key=lambda finding: finding.severity == "info"):
        if finding.fix is None or finding.fix.text in texts:
            continue
        texts.add(finding.fix.text)
        optional = finding.severity == "info"
        lines.append(_note(finding, f"{mark} Optional." if optional else mark))
        lines += [f"{mark} {line}" if optional else line for line in finding.fix.text.splitlines()]
        lines.append("")
    return lines


def _psql_name(database: str) -> str:
    r"""Return arguments of ``\connect`` for a database of the same server, whatever its name (PostgreSQL documentation,
    psql, "Meta-Commands"): a name alone with ``=`` or ``://`` in it would say to which server to go.
    """
    if re.fullmatch(r"\w+", database):
        return f'"{database}"'
    value = re.sub(r"([\\'])", r"\\\1", database).replace('"', '""')
    return f"-reuse-previous=on \"dbname='{value}'\""


def _shell(findings: Sequence[Finding]) -> str:
    lines = ["#!/bin/sh", "# Read it first. Then run it as root.", "set -eu", ""]
    return "\n".join([*lines, *_statements(findings, "#")])


def _iam(findings: Sequence[Finding]) -> str:
    return iam.merged(list(_once(findings, ""))) + "\n"


def _advice(findings: Sequence[Finding]) -> str:
    return "".join(f"{note}\n  {text}\n\n" for text, note in _once(findings, "-").items())


def _once(findings: Sequence[Finding], mark: str) -> Mapping[str, str]:
    """Return each fix once, and the note of the first finding that asks for it."""
    texts: dict[str, str] = {}
    for finding in findings:
        if finding.fix is not None:
            texts.setdefault(finding.fix.text, _note(finding, mark))
    return texts


_WRITERS = {".sql": _sql, ".sh": _shell, ".json": _iam, ".txt": _advice}

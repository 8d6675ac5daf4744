"""A PostgreSQL database moved by moveout into a fresh server, and what became of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq

from scripts.outsiders.postgresql.compare import CONTROL_SCHEMA, Difference, compare_databases
from scripts.outsiders.postgresql.source import create_database
from scripts.outsiders.program import Killed, Outcome, Program
from scripts.outsiders.suite import Context, SuiteRow
from scripts.postgresql import PostgresServer

_SOURCE, _COPY = "app", "copy"
"""The source's name in the bundle, and the name of the copy."""
_LEAST_ROLE = "mover"
_GRANTS = (
    f"GRANT pg_read_all_data, pg_read_all_stats TO {_LEAST_ROLE}",
    f"""DO $$ DECLARE o oid; BEGIN FOR o IN SELECT oid FROM pg_largeobject_metadata LOOP
    EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO {_LEAST_ROLE}', o); END LOOP; END $$""",
)
"""See docs/reference/privileges.md."""
_WITHOUT_OWNERS = "owners and privileges were left out"
"""What a restore notes where its role may not give objects to others."""


@dataclass(frozen=True, slots=True)
class Move:
    """A move to make. ``least_role``: export as the role of the docs, restore as superuser."""

    variant: str
    source: PostgresServer
    database: str
    encoding: str = "UTF8"
    least_role: bool = False


def move(context: Context, order: Move) -> SuiteRow:
    """Move the database into a new server, and compare both."""
    with _Copy(context, order) as copy:
        row = SuiteRow(order.variant)
        exported = copy.program.run("export", *copy.export_words("bundle"))
        if not exported.finished:
            row.errors.append(exported.failure)
            return row
        restored = copy.program.run("restore", *copy.restore_words("bundle"))
        if not restored.finished:
            row.errors.append(restored.failure)
        judge(row, copy.copied, copy.reported(exported, restored))
        return row


def move_killed(context: Context, order: Move, *, kills: int) -> SuiteRow:
    """Move the database undisturbed, then again with kills; both ways report the same in the end."""
    chance = context.random(f"kills of {order.variant}")
    row = SuiteRow(order.variant)
    with _Copy(context, order) as copy:
        exported = copy.program.run("export", *copy.export_words("bundle"))
        restored = copy.program.run("restore", *copy.restore_words("bundle"))
    with _Copy(context, order) as copy:
        export = Killed(exported.words, exported.seconds, copy.remove_bundle)
        restore = Killed(["restore", *copy.restore_words("bundle")], restored.seconds, copy.empty_database)
        exports = copy.program.run_killed(export, kills=kills, chance=chance)
        restores = copy.program.run_killed(restore, kills=kills, chance=chance)
        row.variant = f"{order.variant} ({exports.met} + {restores.met} kills)"
        for undisturbed, killed in ((exported, exports), (restored, restores)):
            for outcome in (undisturbed, *killed.outcomes):
                if not outcome.finished:
                    row.errors.append(outcome.failure)
                if outcome.essence != undisturbed.essence:
                    row.errors.append(
                        f"the {outcome.words[0]} reports otherwise after kills:"
                        f" {undisturbed.essence[:300]} / {outcome.essence[:300]}"
                    )
            if killed.met < kills:
                row.errors.append(f"{kills - killed.met} kills of the {undisturbed.words[0]} met no run")
        judge(row, copy.copied, copy.reported(exports.last, restores.last))
    return row


class _Copy:
    """A new server, the database's copy on it, and a directory for the bundle; they go away at the end."""

    def __init__(self, context: Context, order: Move) -> None:
        label = re.sub(r"\W+", "-", order.variant)
        self._context, self._order = context, order
        self.server = context.servers.postgres(f"destination-{label}")
        self.copied = Copied(order.source, order.database, self.server)
        create_database(self.server, _COPY, encoding=order.encoding)
        self.program = Program.for_servers(context.servers, context.scratch / f"move-{label}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.servers.end(self.server)
        shutil.rmtree(self.program.directory)

    def export_words(self, bundle: str) -> list[str]:
        """Return the words of an export as the order's role."""
        source, database = self._order.source, self._order.database
        url = make_least_role(source, database) if self._order.least_role else source.url_of(database)
        return [f"{_SOURCE}={url}", "--to", bundle]

    def restore_words(self, bundle: str) -> list[str]:
        """Return the words of a restore as superuser."""
        return [bundle, f"{_SOURCE}={self.server.url_of(_COPY)}", "--report-to", "account"]

    def remove_bundle(self) -> None:
        """Remove the bundle, so that the next export begins anew."""
        shutil.rmtree(self.program.directory / "bundle", ignore_errors=True)

    def empty_database(self) -> None:
        """Replace the copy by an empty database and remove its report, so that the next restore begins anew."""
        shutil.rmtree(self.program.directory / "account", ignore_errors=True)
        self.server.execute(f'DROP DATABASE "{_COPY}" WITH (FORCE)')
        create_database(self.server, _COPY, encoding=self._order.encoding)

    def reported(self, exported: Outcome, restored: Outcome) -> list[str]:
        """Return all that moveout reported of the move."""
        return list(reported_lines(self.program.directory, _SOURCE, exported, restored))


@dataclass(frozen=True, slots=True)
class Copied:
    """A database, and its copy on another server."""

    source: PostgresServer
    database: str
    destination: PostgresServer
    copy: str = _COPY


def judge(row: SuiteRow, copied: Copied, reported: Sequence[str]) -> None:
    """Compare both sides; every difference is one that moveout reported, or a defect."""
    owners = not any(_WITHOUT_OWNERS in line for line in reported)
    comparison = compare_databases(
        copied.source, copied.destination, copied.database, copied.copy, owners=owners
    )
    row.moved, row.equal = comparison.relations, comparison.equal
    row.losses += [] if owners else [_WITHOUT_OWNERS]
    for difference in comparison.differences:
        (row.losses if is_reported(difference, reported) else row.unreported).append(str(difference))
    if row.losses and not row.errors:  # the restore's schema stays: it has the list of what was left out
        row.unreported = [
            line for line in row.unreported if not line.startswith(f"SCHEMA -.{CONTROL_SCHEMA}:")
        ]


def make_least_role(server: PostgresServer, database: str) -> str:
    """Make the role that an export needs at least; return the database's URL for it."""
    server.execute(
        f"DO $$ BEGIN CREATE ROLE {_LEAST_ROLE} LOGIN BYPASSRLS; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    for grant in _GRANTS:
        server.execute(grant, database)
    return server.url_of(database).replace("//postgres@", f"//{_LEAST_ROLE}@")


def reported_lines(directory: Path, source: str, exported: Outcome, restored: Outcome) -> Iterator[str]:
    """Yield all that moveout reported of a source: what it printed, the bundle's ledger and the restore's."""
    yield from _strings(exported.of(source).report.get("sources", []))
    for report_entry in restored.of(source).report.get("restored", []):
        yield from _strings({name: value for name, value in report_entry.items() if name != "tables"})
    for path in [*(directory / "bundle").rglob("*.parquet"), *(directory / "account").rglob("*.parquet")]:
        if path.stem in {"losses", "gaps"}:
            for record in pq.read_table(path).to_pylist():
                if record["source"] == source:
                    yield " ".join(map(str, record.values()))


def _strings(report: Any) -> Iterator[str]:
    """Yield the texts in a report; a gap or another small record is one text."""
    if isinstance(report, str):
        yield report
    elif isinstance(report, Mapping):
        values = list(report.values())
        if values and all(isinstance(value, str) for value in values):
            yield " ".join(values)
        else:
            for value in values:
                yield from _strings(value)
    elif isinstance(report, list):
        for value in report:
            yield from _strings(value)


def is_reported(difference: Difference, reported: Iterable[str]) -> bool:
    """True where a line names the object that differs. Constraints have names of their own next to their table's."""
    names = {_bare_name(difference.name)}
    if difference.kind.endswith("CONSTRAINT"):
        names.add(_bare_name(difference.name).rpartition(" ")[2])
    if difference.kind == "EXTENSION MEMBER":
        names.add(difference.name.partition(":")[0])
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)")
    return any(pattern.search(line.replace('"', "")) for line in reported)


def _bare_name(name: str) -> str:
    """Return the last part of an object's name, without its schema, its arguments and quotes; what a comment or
    privileges are on; a user mapping's server; an extension's member.
    """
    name = re.sub(r"^[\w-]+: [a-z ]+ (?=\S)", "", re.sub(r" of \S+$", "", name))
    name = re.sub(r"^(?:[-\w ]+|\"[^\"]*\")\.(?=.)", "", name.replace('"', ""), count=1)
    return re.sub(r"\(.*\)$", "", re.sub(r"^(?:USER MAPPING .* SERVER|[A-Z]{4}[A-Z ]*) ", "", name))

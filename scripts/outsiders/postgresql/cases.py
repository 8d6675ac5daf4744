"""A directory of small scripts of SQL: a database for each, moved, its restore repeated and killed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.outsiders.postgresql.move import Copied, judge, make_least_role, reported_lines
from scripts.outsiders.postgresql.source import Scripts, create_database, trust_everybody
from scripts.outsiders.program import Outcome, Program
from scripts.outsiders.repeat import Case, move_repeatedly
from scripts.outsiders.suite import Context, Skipped, SuiteRow
from scripts.postgresql import PostgresServer

_VARIABLE = "OUTSIDERS_POSTGRESQL_CASES"
_OWNER = "owner"


class PostgresqlCases:
    """One database for each script, moved by several roles."""

    name = "postgresql-cases"
    origin = f"scripts for psql, *.sql in the directory that {_VARIABLE} names"

    def obtain(self) -> Path | Skipped:
        """Return the directory with the scripts."""
        directory = os.environ.get(_VARIABLE)
        if not directory:
            return Skipped(f"set {_VARIABLE} to a directory with scripts for psql (*.sql)")
        if not any(Path(directory).glob("*.sql")):
            return Skipped(f"{_VARIABLE}={directory}: there is no *.sql in it")
        return Path(directory).resolve()

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Run the scripts, and move their databases as each role."""
        source = context.servers.postgres("source-cases")
        destination = context.servers.postgres("destination-cases")
        for server in (source, destination):
            trust_everybody(server)
        destination.execute(f"CREATE ROLE {_OWNER} LOGIN")
        scripts = context.choose(sorted(context.material.glob("*.sql")))
        for script in scripts:
            create_database(source, script.stem)
            Scripts(source, script.parent, script.parent).run(script.stem, script.read_bytes())
        for role in _ROLES:
            if context.out_of_time:
                yield SuiteRow("others", skipped="the time is used up")
                return
            program = Program.for_servers(context.servers, context.scratch / role.name.replace(" ", "-"))
            cases = [_case(program, source, destination, script.stem, role) for script in scripts]
            yield from move_repeatedly(context, program, cases, variant=role.name, kills=role.kills)


@dataclass(frozen=True, slots=True)
class _Role:
    """Who exports and who restores, and how many restores are killed."""

    name: str
    kills: int
    least_exporter: bool = False
    ordinary_restorer: bool = False


_ROLES = (
    _Role("superuser", kills=3),
    _Role("restored by owner", kills=1, ordinary_restorer=True),
    _Role("least role", kills=1, least_exporter=True),
)
"""The least role is the last one: rights are granted to it at the source."""


def _case(
    program: Program, source: PostgresServer, destination: PostgresServer, name: str, role: _Role
) -> Case:
    source_url, destination_url = source.url_of(name), destination.url_of(name)
    if role.least_exporter:
        source_url = make_least_role(source, name)
    if role.ordinary_restorer:
        destination_url = destination_url.replace("//postgres@", f"//{_OWNER}@")

    def make_empty() -> None:
        destination.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        create_database(destination, name)
        if role.ordinary_restorer:
            destination.execute(f'ALTER DATABASE "{name}" OWNER TO {_OWNER}')

    def judge_copy(row: SuiteRow, exported: Outcome, restored: Outcome) -> None:
        reported = list(reported_lines(program.directory, name, exported, restored))
        judge(row, Copied(source, name, destination, name), reported)

    return Case(name, source_url, destination_url, make_empty, judge_copy)


SUITE = PostgresqlCases()

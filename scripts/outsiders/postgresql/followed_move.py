"""A workload of somebody else, run at a database that moveout follows; then the cutover, and both sides compared."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg

from scripts.outsiders.postgresql.compare import Comparison, Difference, compare_databases
from scripts.outsiders.postgresql.move import is_reported
from scripts.outsiders.postgresql.source import create_database, trust_everybody
from scripts.outsiders.program import Outcome, Program
from scripts.outsiders.suite import Context, SuiteRow
from scripts.postgresql import PostgresServer
from scripts.process import Argv

_SETTINGS = ("wal_level=logical", "max_prepared_transactions=20", "logical_decoding_work_mem=64kB")
"""What the publishers of PostgreSQL's subscription tests have: large transactions are spilled early."""
_STATEMENT_SECONDS = 120.0
_FOLLOW_BEGINS_SECONDS = 30.0
_REFUSED, _HINDERED = "NOT SWITCHED", "NOT SWITCHED by an error"
_AT_ONCE = 6
"""So many databases are the sources of one case: a command of its own for each would cost more than the work."""
_PROVED = ("ROWS", "COLUMNS", "LARGE OBJECT")
"""Kinds of differences that a cutover has to name whenever it switches; the guide says that of definitions only
missing ones are named.
"""
_OURS = re.compile(r"moveout_|default_transaction_read_only")
"""What following itself has made: the schema of marks, the publication, and the hold."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that a workload does: SQL for psql, or in a session that stays open; or a restart of the server."""

    text: str = ""
    session: int | None = None
    is_restart: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables of psql."""
    directory: Path | None = None
    """Where the script includes files from."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is run before the base is taken, and what while the database is followed."""

    name: str
    before: Sequence[Step]
    after: Sequence[Step]


@dataclass(slots=True)
class FollowedMoves:
    """Moves workloads between two servers, several at once."""

    context: Context
    source: PostgresServer
    destination: PostgresServer

    @classmethod
    def begin(cls, context: Context) -> FollowedMoves:
        """Start both servers."""
        source = context.servers.postgres("source-followed", settings=_SETTINGS)
        destination = context.servers.postgres("destination-followed")
        for server in (source, destination):
            trust_everybody(server)
        return cls(context, source, destination)

    def move_all(self, workloads: Iterable[Workload]) -> Iterator[SuiteRow]:
        """Move all workloads, some of them as the sources of one case. Where one of these hinders the switch of the
        others, each of these is moved by itself.
        """
        pending = iter(workloads)
        while chosen := list(islice(pending, _AT_ONCE)):
            if self.context.out_of_time:
                yield SuiteRow("others", skipped="the time is used up")
                return
            rows = self._move(chosen)
            if len(chosen) > 1:
                hindered = [row for row in rows if row.errors or _is_hindered(row)]
                alone = [one for one in chosen if any(row.variant == one.name for row in hindered)]
                rows = [row for row in rows if row not in hindered]
                rows += [row for workload in alone for row in self._move([workload])]
            yield from rows

    def _move(self, workloads: Sequence[Workload]) -> list[SuiteRow]:
        """Run workloads one after the other while all of them are followed, switch, and compare."""
        directory = self.context.scratch / "followed"
        databases = {re.sub(r"\W+", "_", workload.name).lower(): workload for workload in workloads}
        with ExitStack() as stack:
            stack.callback(self._forget, list(databases), directory)
            program = Program.for_servers(self.context.servers, directory)
            move = _Move(self.source, self.destination, databases, program, stack)
            for name in databases:
                create_database(self.source, name)
                create_database(self.destination, name)
            move.run()
            return list(move.rows.values())

    def _forget(self, databases: Sequence[str], directory: Path) -> None:
        """Remove what the move has made, also the transactions that it left prepared."""
        end_prepared(self.source)
        with psycopg.connect(self.source.url, password=self.source.password, autocommit=True) as connection:
            slots = connection.execute("SELECT slot_name FROM pg_replication_slots").fetchall()
            for (slot,) in slots:
                connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
        for server in (self.source, self.destination):
            for name in databases:
                server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        shutil.rmtree(directory, ignore_errors=True)


def end_prepared(server: PostgresServer) -> None:
    """Roll back what was left prepared: a base waits for it, and a hold refuses it."""
    with psycopg.connect(server.url, password=server.password, autocommit=True) as connection:
        prepared = connection.execute("SELECT gid, database FROM pg_prepared_xacts").fetchall()
    for gid, database in prepared:
        server.execute(f"ROLLBACK PREPARED '{gid}'", database)


@dataclass(slots=True)
class _Move:
    """One move of several databases."""

    source: PostgresServer
    destination: PostgresServer
    workloads: Mapping[str, Workload]
    program: Program
    stack: ExitStack
    rows: dict[str, SuiteRow] = field(default_factory=dict)
    reported: dict[str, list[str]] = field(default_factory=dict)
    _sessions: dict[tuple[str, int], psycopg.Connection[Any]] = field(default_factory=dict)

    def run(self) -> None:
        """Take the base, run the workloads while they are followed, switch and compare."""
        lines = ['[case]\nname = "outsiders"\nfollow = true\n[bundle]\nlocation = "bundle"']
        for name, workload in self.workloads.items():
            self.rows[name] = SuiteRow(workload.name)
            self.reported[name] = []
            lines.append(f'[[source]]\nname = "{name}"\nurl = "{self.source.url_of(name)}"')
            lines.append(f'[[destination]]\nsource = "{name}"\nurl = "{self.destination.url_of(name)}"')
            for step in workload.before:
                self._do(name, step)
        end_prepared(self.source)
        (self.program.directory / "moveout.toml").write_text("\n".join([*lines, ""]))
        for verb in ("export", "restore"):
            outcome = self.program.run(verb, "-c", "moveout.toml")
            self._heed(outcome)
            if not outcome.finished:
                self._fail(outcome.failure)
                return
        following = self._follow()
        for name, workload in self.workloads.items():
            for step in workload.after:
                self._do(name, step)
        for connection in self._sessions.values():
            connection.close()
        end_prepared(self.source)
        switched = self.program.run("cutover", "-c", "moveout.toml", "--hold", "--yes")
        self._heed(switched)
        following.wait(timeout=_STATEMENT_SECONDS)
        self._judge(switched)

    def _fail(self, reason: str) -> None:
        for row in self.rows.values():
            row.errors.append(reason)

    def _follow(self) -> subprocess.Popen[bytes]:
        """Follow in the background, and wait until all logs are read."""
        log = self.stack.enter_context((self.program.directory / "follow.log").open("wb"))
        following = self.program.start("follow", "-c", "moveout.toml", output=log)
        self.stack.callback(_end, following)
        deadline = time.monotonic() + _FOLLOW_BEGINS_SECONDS
        query = "SELECT count(*) FROM pg_replication_slots WHERE active"
        with psycopg.connect(self.source.url, password=self.source.password, autocommit=True) as connection:
            while time.monotonic() < deadline and following.poll() is None:
                if connection.execute(query).fetchone() == (len(self.workloads),):
                    break
                time.sleep(0.1)
        return following

    def _do(self, name: str, step: Step) -> None:
        """Do a step. A statement may fail, as in the suite itself."""
        if step.is_restart:
            self._sessions.clear()
            self.source.child.start_again(self.source.accepts)
        elif step.session is not None:
            key = (name, step.session)
            if key not in self._sessions:
                self._sessions[key] = self.stack.enter_context(
                    psycopg.connect(self.source.url_of(name), password=self.source.password, autocommit=True)
                )
            with suppress(psycopg.Error):
                self._sessions[key].execute(step.text.encode())
        else:
            self._psql(name, step)

    def _psql(self, name: str, step: Step) -> None:
        variables = [word for key, value in step.variables.items() for word in ("-v", f"{key}={value}")]
        url = self.source.url_of(name)
        argv: Argv = [self.source.bin_dir / "psql", "-X", "-q", *variables, "-d", url, "-f", "-"]
        try:
            subprocess.run(
                argv,
                input=step.text.encode("utf-8", "surrogateescape"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                cwd=step.directory or self.program.directory,
                env={"PGPASSWORD": self.source.password, "LC_ALL": "C"},
                timeout=_STATEMENT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            self.rows[name].errors.append(f"a statement hangs while it is followed: {step.text[:200]}")

    def _heed(self, outcome: Outcome) -> None:
        """Take down what a command says of differences. Its other output names sources at the beginning of lines."""
        if outcome.traceback:
            self._fail(outcome.failure)
        for name, lines in self.reported.items():
            lines.extend(_named(outcome.of(name).report))
            lines.extend(line for line in outcome.stderr.splitlines() if name in line or len(self.rows) == 1)

    def _judge(self, switched: Outcome) -> None:
        """Compare both sides. Where nothing was switched, that is a difference, which the command names."""
        log = (self.program.directory / "follow.log").read_text(errors="replace")
        if "Traceback (most recent call last)" in log or "was not foreseen" in log:
            self._fail(f"moveout follow: {log[-1500:]}")
        for name, row in self.rows.items():
            try:
                comparison = compare_databases(self.source, self.destination, name, name, owners=False)
            except psycopg.Error as error:  # a table whose columns differ cannot be read alike
                difference = Difference("COLUMNS", name, str(error))
                comparison = Comparison(1, 0, [difference])
            row.moved, row.equal = comparison.relations, max(comparison.equal, 0)
            is_equal = any(
                entry.get("name") == name and not entry.get("differences") for entry in _sources(switched)
            )
            if not switched.report.get("switched") and not is_equal:
                found = list(_named(switched.of(name).report))
                words = " | ".join(found or switched.stderr.splitlines()[-4:])[:1500]
                refusal = f"{_REFUSED} (exit code {switched.exit_code})" if found else _HINDERED
                row.losses.append(f"{refusal}: {words}")
                continue
            for difference in comparison.differences:
                if _OURS.search(str(difference)):
                    continue
                whole = replace(difference, name=difference.name.partition(" ")[0])
                if any(is_reported(part, self.reported[name]) for part in (difference, whole)):
                    row.losses.append(str(difference))
                elif difference.kind in _PROVED or difference.detail == "missing":
                    row.unreported.append(str(difference))


def _sources(outcome: Outcome) -> Sequence[Mapping[str, Any]]:
    sources: Sequence[Mapping[str, Any]] = outcome.report.get("sources", [])
    return sources


def _is_hindered(row: SuiteRow) -> bool:
    return any(line.startswith(_HINDERED) for line in row.losses)


def _named(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a report names as missing or different, and no table that it calls equal."""
    for entry in [*report.get("sources", []), *report.get("restored", [])]:
        carried = entry.get("carried") or {}
        lists = [
            entry.get(name) for name in ("missing", "gaps", "losses", "left_out", "differences", "findings")
        ]
        for items in (*lists, carried.get("missing"), carried.get("notes")):
            yield from map(str, items or [])


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        child.wait()

"""PostgreSQL's regression tests: the databases that their scripts make, moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from scripts.outsiders.postgresql.move import Move, move, move_killed
from scripts.outsiders.postgresql.source import (
    Scripts,
    create_database,
    obtain_libraries,
    obtain_source,
    trust_everybody,
)
from scripts.outsiders.psql_script import cuts, split_script, without_drops
from scripts.outsiders.suite import Context, Skipped, SuiteRow
from scripts.postgresql import PostgresServer

_DATABASE = "regression"
_SETUP = "test_setup"
_CUT_DATABASES = 4
_CUT_SCRIPTS = 12
_KILLS = 10


@dataclass(frozen=True, slots=True)
class _Variant:
    """``seconds`` is about what it takes, so that a short run begins only what it can finish."""

    name: str
    seconds: float
    run: Callable[[Context, str], Iterator[SuiteRow]]


class PostgresqlRegress:
    """The database that PostgreSQL's regression tests leave, and databases that they leave on the way."""

    name = "postgresql-regress"
    origin = "PostgreSQL's regression tests, from the Debian source package of the server in use"

    def obtain(self) -> Path | Skipped:
        """Return the unpacked source; its libraries are compiled."""
        tree = obtain_source()
        if isinstance(tree, Skipped):
            return tree
        libraries = obtain_libraries(tree)
        return libraries if isinstance(libraries, Skipped) else tree

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Move the databases in this run's variants."""
        variants = [
            *(_Variant(f"cut {number}", 20, _run_cut) for number in range(1, _CUT_DATABASES + 1)),
            _Variant("plain", 400, _run_plain),
            _Variant("drops removed", 600, _run_without_drops),
            _Variant("SQL_ASCII", 300, _run_encoding),
            _Variant("EUC_JP", 300, _run_encoding),
            _Variant("killed", 900, _run_killed),
        ]
        for variant in variants[context.slice_index :: context.slice_count]:
            left = context.seconds_left
            if left is not None and left < variant.seconds:
                yield SuiteRow(
                    variant.name, skipped=f"it takes about {variant.seconds:.0f} s, {left:.0f} s are left"
                )
            else:
                yield from variant.run(context, variant.name)


def _run_plain(context: Context, variant: str) -> Iterator[SuiteRow]:
    with _Source(context, variant) as source:
        source.run_schedule(source.scripts.text)
        yield move(context, Move(f"{variant}, superuser", source.server, _DATABASE))
        yield move(context, Move(f"{variant}, least role", source.server, _DATABASE, least_role=True))


def _run_without_drops(context: Context, variant: str) -> Iterator[SuiteRow]:
    with _Source(context, variant) as source:
        source.run_schedule(lambda name: without_drops(source.scripts.text(name)))
        yield move(context, Move(f"{variant}, superuser", source.server, _DATABASE))
        yield move(context, Move(f"{variant}, least role", source.server, _DATABASE, least_role=True))


def _run_encoding(context: Context, encoding: str) -> Iterator[SuiteRow]:
    with _Source(context, encoding, encoding=encoding) as source:
        source.run_schedule(source.scripts.text)
        yield move(context, Move(f"plain, {encoding}", source.server, _DATABASE, encoding=encoding))


def _run_cut(context: Context, variant: str) -> Iterator[SuiteRow]:
    """Move a database in which some scripts ended just before one of their DROPs."""
    chance = context.random(variant)
    with _Source(context, variant) as source:
        pieces = {name: split_script(source.scripts.text(name)) for name in source.scripts.schedule()}
        ends = {name: list(cuts(script)) for name, script in pieces.items()}
        names = chance.sample([name for name in pieces if ends[name]], _CUT_SCRIPTS)
        chosen = {name: chance.choice(ends[name]) for name in names}
        source.run(_SETUP, source.scripts.text(_SETUP))
        for name in [name for name in pieces if name in chosen]:
            source.run(name, "".join(pieces[name][: chosen[name]]))
        row = move(context, Move(variant, source.server, _DATABASE))
        if row.failed:
            row.errors.append(f"the cuts were: {', '.join(f'{name}:{end}' for name, end in chosen.items())}")
        yield row


def _run_killed(context: Context, variant: str) -> Iterator[SuiteRow]:
    """Kill exports and restores; what they report in the end is what they report undisturbed."""
    with _Source(context, variant) as source:
        source.run_schedule(lambda name: without_drops(source.scripts.text(name)))
        yield move_killed(context, Move(variant, source.server, _DATABASE), kills=_KILLS)


class _Source:
    """A server with a regression database and the scripts that fill it."""

    def __init__(self, context: Context, variant: str, *, encoding: str = "UTF8") -> None:
        label = variant.replace(" ", "-")
        self._context = context
        self.server: PostgresServer = context.servers.postgres(f"source-{label}")
        trust_everybody(self.server)
        libraries = obtain_libraries(context.material)
        assert isinstance(libraries, Path)
        self.scripts = Scripts.stage(
            self.server,
            context.material / "src/test/regress",
            libraries,
            context.scratch / f"scripts-{label}",
        )
        create_database(self.server, _DATABASE, encoding=encoding)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.servers.end(self.server)

    def run(self, name: str, script: str) -> None:
        """Run one script; keep its output next to those of others."""
        (self.scripts.directory / "results" / f"{name}.out").write_text(
            self.scripts.run(_DATABASE, script), "latin1"
        )

    def run_schedule(self, text: Callable[[str], str]) -> None:
        """Run all scripts in the order of the schedule."""
        for name in self.scripts.schedule():
            self.run(name, text(name))


SUITE = PostgresqlRegress()

"""The regression tests of PostgreSQL's extensions: a database for each extension, moved."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from scripts.outsiders.postgresql.move import Move, move
from scripts.outsiders.postgresql.source import (
    Scripts,
    create_database,
    obtain_libraries,
    obtain_source,
    trust_everybody,
)
from scripts.outsiders.suite import Context, Skipped, SuiteRow

_NO_DATABASE = {"test_decoding", "sepgsql", "basic_archive", "passwordcheck"}
"""Their tests need a server set up for them."""


class PostgresqlContrib:
    """The databases that the tests of ``contrib`` leave."""

    name = "postgresql-contrib"
    origin = "tests of PostgreSQL's extensions (contrib), from the Debian source package of the server in use"

    def obtain(self) -> Path | Skipped:
        """Return the unpacked source."""
        return obtain_source()

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Move each extension's database."""
        modules = [path.parent for path in sorted((context.material / "contrib").glob("*/sql"))]
        for module in context.choose([module for module in modules if module.name not in _NO_DATABASE]):
            if context.out_of_time:
                yield SuiteRow("others", skipped="the time is used up")
                return
            yield _move_module(context, module)


def _move_module(context: Context, module: Path) -> SuiteRow:
    """Run a module's scripts in a database of a server of their own, and move it."""
    server = context.servers.postgres(f"source-{module.name}")
    try:
        trust_everybody(server)
        libraries = obtain_libraries(context.material)
        if isinstance(libraries, Skipped):
            return SuiteRow(module.name, skipped=libraries.reason)
        scripts = Scripts.stage(server, module, libraries, context.scratch / f"scripts-{module.name}")
        create_database(server, "contrib")
        for name in scripts_of(module):
            scripts.run("contrib", scripts.text(name))
        return move(context, Move(module.name, server, "contrib"))
    finally:
        context.servers.end(server)


def scripts_of(module: Path) -> list[str]:
    """Return the names of a module's scripts in the order of its makefile."""
    makefile = (module / "Makefile").read_text().replace("\\\n", " ")
    named = re.search(r"^REGRESS\s*\+?=(.*)$", makefile, re.MULTILINE)
    names = named[1].split() if named else []
    return [name for name in names if (module / "sql" / f"{name}.sql").exists()]


SUITE = PostgresqlContrib()

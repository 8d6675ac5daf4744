"""The statements by which PostgreSQL tests pg_dump: a database of one object of every kind, moved."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from scripts.outsiders.postgresql.move import Move, move
from scripts.outsiders.postgresql.source import Scripts, create_database, obtain_source, trust_everybody
from scripts.outsiders.suite import Context, Skipped, SuiteRow

_TEST = re.compile(r"^\t'((?:[^'\\]|\\.)*)'\s*=>\s*\{(.*?)^\t\},?$", re.MULTILINE | re.DOTALL)
_SQL = re.compile(r"create_sql\s*=>\s*(.*?)\n\t\t\w+\s*=>", re.DOTALL)
_LITERAL = re.compile(
    r"""'((?:[^'\\]|\\.)*)' | "((?:[^"\\]|\\.)*)" | qq?\{(.*?)\} | qq?\((.*)\)""", re.VERBOSE | re.DOTALL
)


class PostgresqlDump:
    """The database of pg_dump's own tests."""

    name = "postgresql-dump"
    origin = (
        "statements of pg_dump's tests (002_pg_dump.pl), from the Debian source package of the server in use"
    )

    def obtain(self) -> Path | Skipped:
        """Return the unpacked source."""
        return obtain_source()

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Move the database as superuser and as the least role."""
        script = (context.material / "src/bin/pg_dump/t/002_pg_dump.pl").read_text()
        server = context.servers.postgres("source-dump")
        try:
            trust_everybody(server)
            directory = context.scratch / "scripts-dump"
            directory.mkdir()
            create_database(server, "dump")
            scripts = Scripts(server, directory, directory)
            for statement in read_statements(script):
                scripts.run("dump", f"{statement};\n")
            yield move(context, Move("superuser", server, "dump"))
            yield move(context, Move("least role", server, "dump", least_role=True))
        finally:
            context.servers.end(server)


def read_statements(script: str) -> list[str]:
    """Return the statements of the tests of a Perl script, in the order in which it executes them."""
    statements = []
    for test in _TEST.finditer(script):
        sql = _SQL.search(test[2])
        if sql and not re.search(r"^\t\tdatabase\s*=>", test[2], re.MULTILINE):
            order = re.search(r"create_order\s*=>\s*(\d+)", test[2])
            statements.append((int(order[1]) if order else 10**6, perl_string(sql[1])))
    return [statement for _, statement in sorted(statements, key=lambda pair: pair[0])]


def perl_string(expression: str) -> str:
    """Return the value of an expression of Perl: literals, joined by dots."""
    parts = []
    for literal in _LITERAL.finditer(expression):
        text = next(group for group in literal.groups() if group is not None)
        if literal[0].startswith(("'", "q{", "q(")):
            parts.append(re.sub(r"\\([\\'])", r"\1", text))
        else:
            parts.append(re.sub(r"\\(.)", _unescaped, text, flags=re.DOTALL))
    return "".join(parts)


def _unescaped(escape: re.Match[str]) -> str:
    return {"n": "\n", "t": "\t"}.get(escape[1], escape[1])


SUITE = PostgresqlDump()

"""Clauses of pg_dump's statements without which an object can be made all the same: defaults, generation expressions
and checks of tables and domains, options of foreign data wrappers, servers and user mappings. Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from migrate.restore.postgres.definitions.dump_script import NAME, QUALIFIED, DumpEntry, tokens

GENERATED = "generation expression"
"""What the labels of such clauses begin with."""
_VIRTUAL = re.compile(rb"GENERATED ALWAYS AS \(.*\)(?=\s*\Z)", re.DOTALL)
"""A generation expression whose values are not stored. pg_dump writes no word for that."""

_TABLE = re.compile(rb"^CREATE (?:UNLOGGED |FOREIGN )?TABLE " + QUALIFIED, re.MULTILINE)
_RANGE = re.compile(rb"^CREATE TYPE " + QUALIFIED + rb" AS RANGE", re.MULTILINE)
_DOMAIN = re.compile(rb"^CREATE DOMAIN " + QUALIFIED + rb" AS ", re.MULTILINE)
_OPTIONS = re.compile(
    rb"^CREATE (?:FOREIGN DATA WRAPPER|SERVER|USER MAPPING FOR) [^\n]*?(?= OPTIONS \(\n)", re.MULTILINE
)
_WITH_OPTIONS = frozenset({"FOREIGN DATA WRAPPER", "SERVER", "USER MAPPING"})
_NAME_OF_ELEMENT = re.compile(rb"\s*(CONSTRAINT )?(" + NAME + rb")")
_OF_COLUMN = re.compile(
    rb"\s*ALTER (?:FOREIGN )?TABLE (?:ONLY )?"
    + QUALIFIED
    + rb" (ALTER COLUMN "
    + NAME
    + rb" SET (?:COMPRESSION|STATISTICS|STORAGE) [^\s;]+|ALTER COLUMN "
    + NAME
    + rb" SET \([^\n]*\));\s*\Z"
)
_VALIDATOR = re.compile(
    rb"^(CREATE FOREIGN DATA WRAPPER (" + NAME + rb")[^\n]*?)"
    rb"( VALIDATOR (?:" + QUALIFIED + rb"|" + NAME + rb"))([^;]*;)",
    re.MULTILINE,
)


class Clause(Struct, frozen=True):
    """A piece of a statement. ``label``: its name in messages, if the statement holds without it."""

    sql: bytes
    label: str = ""


Element = Sequence[Clause]


class Statement(Struct, frozen=True):
    """A statement with a list, whose elements are made of clauses. ``bare``: the same without any element. ``more``:
    the statements of its entry that follow.
    """

    before: bytes
    elements: Sequence[Element]
    separator: bytes
    after: bytes
    bare: bytes
    more: Sequence[Clause] = ()

    def optional(self) -> list[Clause]:
        """Return the clauses that may be left out, in their order."""
        every = (clause for element in (*self.elements, self.more) for clause in element)
        return [clause for clause in every if clause.label]

    def without(self, clauses: Collection[Clause]) -> bytes:
        """Return the SQL without these clauses."""
        every = (
            b"".join(clause.sql for clause in element if clause not in clauses) for element in self.elements
        )
        elements = [sql for sql in every if sql.strip()]
        statement = self.before + self.separator.join(elements) + self.after if elements else self.bare
        return statement + b"".join(clause.sql for clause in self.more if clause not in clauses)


def parse_statement(entry: DumpEntry) -> Statement | None:
    """Return the statement that makes the object of an entry, None where it has no list of this kind."""
    sql = entry.sql
    if entry.kind in {"TABLE", "FOREIGN TABLE"} and (match := _TABLE.search(sql)) is not None:
        return _with_list(sql, match.end(), _column)
    if entry.kind in _WITH_OPTIONS and (match := _OPTIONS.search(sql)) is not None:
        return _with_list(sql, match.end(), _option)
    if entry.kind == "TYPE" and (match := _RANGE.search(sql)) is not None:
        return _with_list(sql, match.end(), _range_option)
    if entry.kind == "DOMAIN" and (match := _DOMAIN.search(sql)) is not None:
        return _domain(sql, match.end())
    return None


def with_late_validator(entry: DumpEntry) -> bytes | None:
    """Return how a foreign data wrapper is made that gets its validator after its options; None of all else."""
    late = rb"\1\4" + b"\n\nALTER FOREIGN DATA WRAPPER " + rb"\2\3;"
    sql, count = _VALIDATOR.subn(late, entry.sql, count=1)
    return sql if count and entry.kind == "FOREIGN DATA WRAPPER" else None


def with_stored_columns(entry: DumpEntry) -> tuple[DumpEntry, Sequence[str]]:
    """Return a table's entry with stored columns in place of virtual ones, and the names of these in it: servers before
    18 take no others.
    """
    statement = parse_statement(entry) if b" GENERATED ALWAYS AS (" in entry.sql else None
    if statement is None:
        return entry, ()
    names: list[str] = []

    def stored(clause: Clause) -> Clause:
        if not (clause.label.startswith(GENERATED) and _VIRTUAL.match(clause.sql)):
            return clause
        names.append(clause.label.removeprefix(f"{GENERATED} of column "))
        return replace(clause, sql=_VIRTUAL.sub(rb"\g<0> STORED", clause.sql))

    elements = [[stored(clause) for clause in element] for element in statement.elements]
    return replace(entry, sql=replace(statement, elements=elements).without(())), names


def _with_list(sql: bytes, position: int, element: Callable[[bytes], Element]) -> Statement | None:
    """Cut a statement at the first list in parentheses after ``position``, if that comes before its end."""
    cuts: list[int] = []
    depth = 0
    for start, token in tokens(sql, position):
        if token == b"(":
            depth += 1
            cuts += [start] if depth == 1 else []
        elif token == b")":
            depth -= 1
            if not depth:
                cuts.append(start)
                break
        elif token == b"," and depth == 1:
            cuts.append(start)
        elif token == b";" and not depth:
            return None
    if len(cuts) < 2 or depth:
        return None
    elements = [element(sql[start + 1 : end]) for start, end in pairwise(cuts)]
    ends = [cuts[-1], *(start + 1 for start, token in tokens(sql, cuts[-1]) if token == b";")]
    before, after = sql[: cuts[0] + 1], sql[cuts[-1] : ends[1] if len(ends) > 1 else len(sql)]
    bare = sql[:position] + after[1:] if element is _option else before + after
    more = [_following(sql[start:end]) for start, end in pairwise([*ends[1:], len(sql)])]
    return Statement(before, elements, b",", after, bare, more)


def _following(sql: bytes) -> Clause:
    """Return a statement that follows; a table comes without one that sets how a column is stored."""
    match = _OF_COLUMN.match(sql)
    return Clause(sql, _text(match[1]) if match else "")


def _option(text: bytes) -> Element:
    match = _NAME_OF_ELEMENT.match(text)
    return [Clause(text, f"option {_text(match[2])}" if match else "")]


def _range_option(text: bytes) -> Element:
    """The name of the multirange type, which servers before 14 do not support, may be left out."""
    return [Clause(text, "multirange type" if text.strip().startswith(b"multirange_type_name ") else "")]


def _column(text: bytes) -> Element:
    """Cut a column into what has to be there and its default or generation expression; a constraint is one clause."""
    match = _NAME_OF_ELEMENT.match(text)
    if match is None:
        return [Clause(text)]
    if match[1] is not None:
        return [Clause(text, f"constraint {_text(match[2])}")]
    span = _expression(text, match.end())
    if span is None:
        return [Clause(text)]
    start, end = span
    what = "default" if text.startswith(b"DEFAULT", start) else GENERATED
    label = f"{what} of column {_text(match[2])}"
    return [Clause(text[:start]), Clause(text[start:end], label), Clause(text[end:])]


def _expression(text: bytes, position: int) -> tuple[int, int] | None:
    """Return where a default or a generation expression begins and ends."""
    depth, first = 0, None
    for start, token in tokens(text, position):
        depth += {b"(": 1, b")": -1}.get(token, 0)
        if depth:
            continue
        if first is None and token in {b"DEFAULT", b"GENERATED"}:
            first = start
        elif first is not None and token in {b"NOT", b"COLLATE", b"CONSTRAINT"}:
            return first, start
    return None if first is None else (first, len(text))


def _domain(sql: bytes, position: int) -> Statement:
    starts = list(_domain_clauses(sql, position))
    elements = []
    for (start, label), (end, _) in pairwise(starts):
        elements.append([Clause(sql[start:end], label)])
    first, last = starts[0][0], starts[-1][0]
    return Statement(sql[:first], elements, b"", sql[last:], sql[:first] + sql[last:])


def _domain_clauses(sql: bytes, position: int) -> Iterator[tuple[int, str]]:
    """Yield where each clause of a domain begins, with its label; at last where the statement ends."""
    depth, whole = 0, True
    for start, token in tokens(sql, position):
        depth += {b"(": 1, b")": -1}.get(token, 0)
        if depth:
            continue
        if token == b"DEFAULT":
            yield start, "default"
        elif token == b"CONSTRAINT" and sql[start - 2 : start] == b"\n\t":
            match = _NAME_OF_ELEMENT.match(sql, start)
            yield start - 2, f"constraint {_text(match[2])}" if match else ""
        elif token == b";":
            whole = False
            yield start, ""
            break
    if whole:
        yield len(sql), ""


def _text(name: bytes) -> str:
    return name.decode(errors="replace")

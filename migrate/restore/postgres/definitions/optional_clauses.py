"""Clauses of pg_dump's statements without which an object can be made all the same: defaults, generation expressions,
collations and checks of tables, types and domains, collations of partition keys, storage parameters, options of foreign
data wrappers, servers and user mappings. Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from exporters.postgres.identifiers import quote_qualified
from migrate.restore.postgres.definitions.dump_script import NAME, QUALIFIED, DumpEntry, tokens

GENERATED, COLLATION = "generation expression", "collation"
"""What the labels of such clauses begin with."""
_VIRTUAL = re.compile(rb"GENERATED ALWAYS AS \(.*\)(?=\s*\Z)", re.DOTALL)
"""A generation expression whose values are not stored. pg_dump writes no word for that."""

_TABLE = re.compile(rb"^CREATE (?:UNLOGGED |FOREIGN )?TABLE " + QUALIFIED, re.MULTILINE)
_RANGE = re.compile(rb"^CREATE TYPE " + QUALIFIED + rb" AS RANGE", re.MULTILINE)
_COMPOSITE = re.compile(rb"^CREATE TYPE " + QUALIFIED + rb" AS (?=\()", re.MULTILINE)
_DOMAIN = re.compile(rb"^CREATE DOMAIN " + QUALIFIED + rb" AS ", re.MULTILINE)
_OPTIONS = re.compile(
    rb"^CREATE (?:FOREIGN DATA WRAPPER|SERVER|USER MAPPING FOR) [^\n]*?(?= OPTIONS \(\n)", re.MULTILINE
)
_WITH_OPTIONS = frozenset({"FOREIGN DATA WRAPPER", "SERVER", "USER MAPPING"})
_OF_KEY = re.compile(rb" COLLATE (" + QUALIFIED + rb"|" + NAME + rb")")
"""The collation of a partition key, where it is not that of the column."""
_PARAMETER = rb"[^=,()]+=(?:'(?:[^']|'')*'|[^',()]+)"
_PARAMETERS = re.compile(rb"\nWITH \((" + _PARAMETER + rb"(?:, " + _PARAMETER + rb")*)\)")
_OF_KEYWORD = {
    b"COLLATE": COLLATION,
    b"CONSTRAINT": "",
    b"DEFAULT": "default",
    b"GENERATED": GENERATED,
    b"NO": "NO INHERIT",
    b"NOT": "",
}
"""What a clause of a column is called that begins with a keyword; "" where the column does not come without it."""
_GRANT = re.compile(
    rb"(?:\s|--[^\n]*\n)*(?P<statement>)(?:ALTER DEFAULT PRIVILEGES [^;]*? )?(?:GRANT|REVOKE(?: GRANT OPTION FOR)?) "
    rb"(?P<privileges>[A-Z]+(?: [A-Z]+)*(?:,[A-Z]+(?: [A-Z]+)*)*)(?:\([^;]*\))? ON .*;",
    re.DOTALL,
)
_NAME_OF_ELEMENT = re.compile(rb"\s*(CONSTRAINT )?(" + NAME + rb")")
_SINCE_18 = re.compile(
    rb" GENERATED ALWAYS AS \(|^    (?:CONSTRAINT " + NAME + rb" )?NOT NULL ", re.MULTILINE
)
"""What may be of a table that servers before 18 do not take."""
_NOT_NULL = re.compile(rb"\s*(?:CONSTRAINT " + NAME + rb" )?NOT NULL (" + NAME + rb")(?: NO INHERIT)?\s*")
_TABLES = frozenset({"TABLE", "FOREIGN TABLE"})
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
    """A statement with a list, whose elements are made of clauses. ``after``: the end of the list, and a partition key.
    ``bare``: the same without any element. ``parameters``: how the object is stored, at the end of the statement.
    ``more``: what of its entry follows.
    """

    before: bytes
    elements: Sequence[Element]
    separator: bytes
    after: Element
    bare: bytes
    parameters: Sequence[Clause] = ()
    more: Sequence[Clause] = ()

    def optional(self) -> list[Clause]:
        """Return the clauses that may be left out, in their order."""
        parts = (*self.elements, self.after, self.parameters, self.more)
        every = (clause for element in parts for clause in element)
        return [clause for clause in every if clause.label]

    def without(self, clauses: Collection[Clause]) -> bytes:
        """Return the SQL without these clauses."""
        *every, after = (
            b"".join(clause.sql for clause in element if clause not in clauses)
            for element in (*self.elements, self.after)
        )
        elements = [sql for sql in every if sql.strip()]
        statement = self.before + self.separator.join(elements) + after if elements else self.bare
        return statement + self.ending(clauses)

    def ending(self, clauses: Collection[Clause] = ()) -> bytes:
        """Return the SQL behind the list and what belongs to it, without these clauses."""
        parameters = b", ".join(clause.sql for clause in self.parameters if clause not in clauses)
        rest = b"".join(clause.sql for clause in self.more if clause not in clauses)
        return (b"\nWITH (" + parameters + b")" if parameters else b"") + rest


def parse_statement(entry: DumpEntry) -> Statement | None:
    """Return the statement that makes the object of an entry, None where it has no list of this kind."""
    sql = entry.sql
    if entry.kind in _TABLES and (match := _TABLE.search(sql)) is not None:
        return _with_list(sql, match.end(), _column)
    if entry.kind in _WITH_OPTIONS and (match := _OPTIONS.search(sql)) is not None:
        return _with_list(sql, match.end(), _option)
    if entry.kind == "TYPE" and (match := _RANGE.search(sql)) is not None:
        return _with_list(sql, match.end(), _range_option)
    if entry.kind == "TYPE" and (match := _COMPOSITE.search(sql)) is not None:
        return _with_list(sql, match.end(), _column)
    if entry.kind in {"ACL", "DEFAULT ACL"}:
        return _grants(sql)
    if entry.kind == "DOMAIN" and (match := _DOMAIN.search(sql)) is not None:
        return _domain(sql, match.end())
    return None


def with_late_validator(entry: DumpEntry) -> bytes | None:
    """Return how a foreign data wrapper is made that gets its validator after its options; None of all else."""
    late = rb"\1\4" + b"\n\nALTER FOREIGN DATA WRAPPER " + rb"\2\3;"
    sql, count = _VALIDATOR.subn(late, entry.sql, count=1)
    return sql if count and entry.kind == "FOREIGN DATA WRAPPER" else None


def as_before_18(entry: DumpEntry) -> tuple[DumpEntry, Sequence[str]]:
    """Return a table's entry as servers before 18 take it, and the names of its virtual columns: they are stored there.
    NOT NULL is no element of a table of its own there, so a column is set so.
    """
    statement = parse_statement(entry) if _SINCE_18.search(entry.sql) and entry.kind in _TABLES else None
    if statement is None:
        return entry, ()
    names: list[str] = []
    elements: list[Element] = []
    label = quote_qualified(entry.schema, entry.name)
    more = [*statement.more]
    for element in statement.elements:
        if match := _NOT_NULL.fullmatch(b"".join(clause.sql for clause in element)):
            alter = f"\nALTER TABLE ONLY {label} ALTER COLUMN ".encode() + match[1] + b" SET NOT NULL;"
            more.insert(1, Clause(alter))
        else:
            elements.append([_stored(clause, names) for clause in element])
    return replace(entry, sql=replace(statement, elements=elements, more=more).without(())), names


def _stored(clause: Clause, names: list[str]) -> Clause:
    """Return a clause with a stored column in place of a virtual one, whose name ``names`` takes."""
    if not (clause.label.startswith(GENERATED) and _VIRTUAL.match(clause.sql)):
        return clause
    names.append(clause.label.removeprefix(f"{GENERATED} of column "))
    return replace(clause, sql=_VIRTUAL.sub(rb"\g<0> STORED", clause.sql))


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
    ends = [start for start, token in tokens(sql, cuts[-1]) if token == b";"]
    end = ends[0] if ends else len(sql)
    stored = _PARAMETERS.search(sql, cuts[-1], end)
    before, after = sql[: cuts[0] + 1], sql[cuts[-1] : stored.start() if stored else end]
    bare = sql[:position] + after[1:] if element is _option else before + after
    parameters = [_parameter(text) for text in re.findall(_PARAMETER, stored[1])] if stored else []
    more = [Clause(sql[stored.end() if stored else end : end + 1])]
    more += [_following(sql[start:stop]) for start, stop in pairwise([*(at + 1 for at in ends), len(sql)])]
    return Statement(
        before=before,
        elements=elements,
        separator=b",",
        after=_partition_key(after),
        bare=bare,
        parameters=parameters,
        more=more,
    )


def _partition_key(after: bytes) -> Element:
    """Cut what follows the columns of a table at the collations of its partition key."""
    collations = list(_OF_KEY.finditer(after))
    starts = [0, *(match.end() for match in collations)]
    ends = [*(match.start() for match in collations), len(after)]
    clauses = [Clause(after[start:end]) for start, end in zip(starts, ends, strict=True)]
    for number, match in enumerate(collations):
        label = f"{COLLATION} {_text(match[1])} of the partition key"
        clauses.insert(2 * number + 1, Clause(match[0], label))
    return clauses


def _parameter(text: bytes) -> Clause:
    sql = text.strip()
    return Clause(sql, f"storage parameter {_text(sql.partition(b'=')[0])}")


def _following(sql: bytes) -> Clause:
    """Return a statement that follows; a table comes without one that sets how a column is stored."""
    match = _OF_COLUMN.match(sql)
    return Clause(sql, _text(match[1]) if match else "")


def _option(text: bytes) -> Element:
    match = _NAME_OF_ELEMENT.match(text)
    return [Clause(text, f"option {_text(match[2])}" if match else "")]


def _range_option(text: bytes) -> Element:
    """The collation may be left out, and the name of the multirange type, which servers before 14 do not support."""
    labels = {b"multirange_type_name": "multirange type", b"collation": COLLATION}
    return [Clause(text, labels.get(text.split(maxsplit=1)[0], ""))]


def _column(text: bytes) -> Element:
    """Cut a column into its clauses; a constraint is one clause."""
    match = _NAME_OF_ELEMENT.match(text)
    if match is None:
        return [Clause(text)]
    if match[1] is not None:
        return [Clause(text, f"constraint {_text(match[2])}")]
    starts = [(0, ""), *_clauses(text, match.end())]
    ends = [*(start for start, _ in starts[1:]), len(text)]
    return [
        Clause(text[start:end], f"{what} of column {_text(match[2])}" if what else "")
        for (start, what), end in zip(starts, ends, strict=True)
    ]


def _clauses(text: bytes, position: int) -> Iterator[tuple[int, str]]:
    """Yield where the clauses of a column begin, and what they are."""
    depth = 0
    for start, token in tokens(text, position):
        depth += {b"(": 1, b")": -1}.get(token, 0)
        if not depth and token in _OF_KEYWORD:
            yield start, _OF_KEYWORD[token]


def _grants(sql: bytes) -> Statement:
    """Return privileges, each of which is a statement of its own."""
    starts = [0, *(start + 1 for start, token in tokens(sql, 0) if token == b";")]
    clauses: list[Clause] = []
    for start, end in pairwise([*starts, len(sql)]):
        match = _GRANT.fullmatch(sql, start, end)
        if match is None:
            clauses.append(Clause(sql[start:end]))
            continue
        first, last = match.span("privileges")
        for privilege in match["privileges"].split(b","):
            statement = sql[match.start("statement") : first] + privilege + sql[last:end]
            clauses.append(Clause(sql[start : match.start("statement")] + statement, _text(statement[:-1])))
    return Statement(b"", [clauses], b"", (), b"")


def _domain(sql: bytes, position: int) -> Statement:
    starts = list(_domain_clauses(sql, position))
    elements = []
    for (start, label), (end, _) in pairwise(starts):
        elements.append([Clause(sql[start:end], label)])
    first, last = starts[0][0], starts[-1][0]
    return Statement(sql[:first], elements, b"", [Clause(sql[last:])], sql[:first] + sql[last:])


def _domain_clauses(sql: bytes, position: int) -> Iterator[tuple[int, str]]:
    """Yield where each clause of a domain begins, with its label; at last where the statement ends."""
    depth, whole = 0, True
    for start, token in tokens(sql, position):
        depth += {b"(": 1, b")": -1}.get(token, 0)
        if depth:
            continue
        if token in {b"DEFAULT", b"COLLATE", b"NOT"}:
            yield start, _OF_KEYWORD[token]
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

"""Two PostgreSQL databases compared by means of their own: pg_dump's entries, the rows of each relation, large objects.

Nothing here uses moveout's code, so an error in that cannot hide itself.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import psycopg

from scripts.postgresql import PostgresServer
from scripts.process import Argv

_HEAD = re.compile(r"^--\n-- Name: (.*); Type: ([A-Z ]+); Schema: (.*); Owner: .*\n--\n", re.MULTILINE)
_SETTINGS = (
    "SET search_path = ''; SET row_security = off; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle"
    " = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET lc_numeric = 'C';"
    " SET quote_all_identifiers = on; SET xmloption = 'content'"
)
_RELATIONS = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind::text, c.relispopulated,
  ARRAY(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum),
  ARRAY(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
    AND attgenerated = '' ORDER BY attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'S', 'p', 'f', 'v') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
  AND n.nspname NOT IN ('information_schema', 'moveout_restore')
"""
_PROPERTIES = {
    "LARGE OBJECT": """
        SELECT m.oid::text, concat_ws(' ', obj_description(m.oid, 'pg_largeobject'),
          md5(lo_get(m.oid)))
        FROM pg_largeobject_metadata m""",
    "FOREIGN KEY TRIGGERS": """
        SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
          string_agg(t.tgenabled::text, '' ORDER BY tgfoid)
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE t.tgisinternal AND t.tgenabled <> 'O' GROUP BY 1""",
    "KEY OF A PARTITION": """
        SELECT quote_ident(k.conname) || ' of ' || k.conrelid::regclass, k.convalidated::text FROM pg_constraint k
        JOIN pg_constraint p ON p.oid = k.conparentid WHERE k.contype = 'f' AND k.conrelid <> p.conrelid""",
    "DATABASE SETTING": """
        SELECT coalesce(r.rolname, '') , array_to_string(s.setconfig, ', ') FROM pg_db_role_setting s
        JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
        WHERE d.datname = current_database()""",
    "EXTENSION MEMBER": """
        SELECT e.extname || ': ' || pg_describe_object(d.classid, d.objid, d.objsubid), '' FROM pg_depend d
        JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass WHERE d.deptype = 'e'""",
    "EXTENSION VERSION": "SELECT extname, extversion FROM pg_extension",
}
"""What pg_dump's schema does not show: a query of names and values each."""
_OWNERS = {
    "OWNER OF LARGE OBJECT": """
        SELECT m.oid::text, concat_ws(' ', r.rolname, m.lomacl)
        FROM pg_largeobject_metadata m JOIN pg_roles r ON r.oid = m.lomowner""",
}
"""The same, of owners and privileges."""


CONTROL_SCHEMA = "moveout_restore"
"""Of a restore's own schema, which stays where something was left out, no table is compared."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not the same on both sides. ``name`` is the object's, as moveout may report it."""

    kind: str
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many relations with rows of their own there are, how many are equal, and all that differs."""

    relations: int
    equal: int
    differences: Sequence[Difference]


def compare_databases(
    source: PostgresServer,
    destination: PostgresServer,
    name: str,
    destination_name: str,
    *,
    owners: bool = True,
) -> Comparison:
    """Compare a database with its copy on another server, both as superuser; ``owners``: their privileges, too."""
    source_entries, destination_entries = (
        dump_entries(source, name, owners=owners),
        dump_entries(destination, destination_name, owners=owners),
    )
    if any(
        difference.detail.startswith("differs")
        for difference in compare_entries(source_entries, destination_entries)
    ):
        source_entries = as_printed_again(
            source_entries, destination_entries, _reference_entries(source, name, owners=owners)
        )
    differences = list(compare_entries(source_entries, destination_entries))
    with (
        _Connection(source, name) as source_connection,
        _Connection(destination, destination_name) as destination_connection,
    ):
        for kind, query in {**_PROPERTIES, **(_OWNERS if owners else {})}.items():
            differences += _compare_mappings(
                kind, dict(source_connection.fetch(query)), dict(destination_connection.fetch(query))
            )
        relations = source_connection.relations()
        with_rows = [difference for difference in relations.values() if difference.kind in "rmS"]
        different = list(
            _compare_relations(
                source_connection, destination_connection, relations, destination_connection.relations()
            )
        )
    unequal = {difference.name for difference in different if difference.kind == "ROWS"}
    return Comparison(len(with_rows), len(with_rows) - len(unequal), [*differences, *different])


@dataclass(frozen=True, slots=True)
class DumpEntry:
    """An entry of a dump: an object's definition, its comment or its privileges."""

    kind: str
    schema: str
    name: str
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What the entry is about."""
        return self.kind, self.schema, self.name


def dump_entries(server: PostgresServer, database: str, *, owners: bool = True) -> list[DumpEntry]:
    """Return what ``pg_dump --schema-only`` writes, with or without owners and privileges."""
    options = [] if owners else ["--no-owner", "--no-privileges"]
    argv: Argv = [server.bin_dir / "pg_dump", "--schema-only", *options, "-d", server.url_of(database)]
    completed = subprocess.run(
        argv, capture_output=True, check=True, env={"PGPASSWORD": server.password, "LC_ALL": "C"}
    )
    return read_entries(completed.stdout.decode("utf-8", "surrogateescape"))


def read_entries(text: str) -> list[DumpEntry]:
    """Return a dump's entries. Access privileges are put in order: pg_dump writes them in that of the catalog."""
    heads = list(_HEAD.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)][: len(heads)]
    entries = []
    for head, end in zip(heads, ends, strict=True):
        body = re.sub(
            r"^SET default_(?:tablespace|table_access_method) = .*\n",
            "",
            text[head.end() : end],
            flags=re.MULTILINE,
        )
        body = body.split("\n--\n-- PostgreSQL database dump complete")[0].strip()
        if head[2] in {"ACL", "DEFAULT ACL"}:
            body = "\n".join(sorted(body.splitlines()))
        if head[3] != CONTROL_SCHEMA:
            entries.append(DumpEntry(head[2], head[3], head[1], body))
    return entries


def _reference_entries(server: PostgresServer, database: str, *, owners: bool) -> list[DumpEntry]:
    """Return the dump of a copy that PostgreSQL's own programs make of the database on its own server."""
    environment = {"PGPASSWORD": server.password, "LC_ALL": "C"}
    reference = f"{database}_reference"
    dump: Argv = [server.bin_dir / "pg_dump", "--schema-only", "--create", "-d", server.url_of(database)]
    script = subprocess.run(dump, capture_output=True, check=True, env=environment).stdout
    (create,) = re.findall(rb"^CREATE DATABASE .* WITH (TEMPLATE .*);$", script, re.MULTILINE)
    server.execute(f'CREATE DATABASE "{reference}" {create.decode()}')
    try:
        dump = [
            server.bin_dir / "pg_dump",
            "--schema-only",
            "--no-subscriptions",
            "-d",
            server.url_of(database),
        ]
        script = subprocess.run(dump, capture_output=True, check=True, env=environment).stdout
        psql: Argv = [server.bin_dir / "psql", "-X", "-q", "-d", server.url_of(reference)]
        subprocess.run(psql, input=script, capture_output=True, check=True, env=environment)
        return dump_entries(server, reference, owners=owners)
    finally:
        server.execute(f'DROP DATABASE "{reference}"')


def as_printed_again(
    source_entries: Iterable[DumpEntry],
    destination_entries: Iterable[DumpEntry],
    reference: Iterable[DumpEntry],
) -> list[DumpEntry]:
    """Return our entries, each as the reference has it where that is how the copy has it, too.

    PostgreSQL prints some expressions otherwise once it has read back what it printed.
    """
    source_by_key, destination_by_key, reference_by_key = (
        _by_key(entries) for entries in (source_entries, destination_entries, reference)
    )
    return [
        entry
        for key, entries in source_by_key.items()
        for entry in (
            reference_by_key[key]
            if key in reference_by_key and reference_by_key[key] == destination_by_key.get(key)
            else entries
        ).elements()
    ]


def _by_key(entries: Iterable[DumpEntry]) -> dict[tuple[str, str, str], Counter[DumpEntry]]:
    grouped: dict[tuple[str, str, str], Counter[DumpEntry]] = defaultdict(Counter)
    for entry in entries:
        grouped[entry.key][entry] += 1
    return dict(grouped)


def compare_entries(
    source_entries: Iterable[DumpEntry], destination_entries: Iterable[DumpEntry]
) -> Iterator[Difference]:
    """Yield the entries that only one side has, or has otherwise."""
    missing = Counter(source_entries)
    extra = Counter(destination_entries)
    missing, extra = missing - extra, extra - missing
    extra_by_key = {entry.key: entry for entry in extra}
    for entry in missing:
        other = extra_by_key.pop(entry.key, None)
        detail = "missing" if other is None else f"differs: {_first_difference(entry.text, other.text)}"
        yield Difference(entry.kind, f"{entry.schema}.{entry.name}", detail)
    for entry in extra_by_key.values():
        yield Difference(
            entry.kind, f"{entry.schema}.{entry.name}", f"only in the copy: {entry.text[:200]!r}"
        )


def _first_difference(source_text: str, destination_text: str) -> str:
    """Return the first lines that differ."""
    for source_line, destination_line in zip(
        [*source_text.splitlines(), ""], [*destination_text.splitlines(), ""], strict=False
    ):
        if source_line != destination_line:
            return f"{source_line.strip()[:160]!r} / {destination_line.strip()[:160]!r}"
    return "blank lines"


def _compare_mappings(
    kind: str, source_mapping: Mapping[str, str], destination_mapping: Mapping[str, str]
) -> Iterator[Difference]:
    for name in sorted(source_mapping.keys() | destination_mapping.keys()):
        if name not in destination_mapping:
            yield Difference(kind, name, "missing")
        elif name not in source_mapping:
            yield Difference(kind, name, "only in the copy")
        elif source_mapping[name] != destination_mapping[name]:
            yield Difference(
                kind, name, f"differs: {source_mapping[name][:200]!r} / {destination_mapping[name][:200]!r}"
            )


@dataclass(frozen=True, slots=True)
class _Relation:
    name: str
    kind: str
    populated: bool
    columns: Sequence[str]
    stored_columns: Sequence[str]


def _compare_relations(
    source_connection: _Connection,
    destination_connection: _Connection,
    source_relations: Mapping[str, _Relation],
    destination_relations: Mapping[str, _Relation],
) -> Iterator[Difference]:
    for name, relation in sorted(source_relations.items()):
        other = destination_relations.get(name)
        if other is None:
            if relation.kind in "rmS":
                yield Difference("ROWS", name, "the relation is missing")
            continue
        if list(relation.columns) != list(other.columns):
            yield Difference("COLUMNS", name, f"differ: {relation.columns} / {other.columns}")
        if relation.populated != other.populated:
            yield Difference("ROWS", name, "populated on one side only")
        elif relation.kind in "rmS" and relation.populated:
            rows, destination_rows = source_connection.rows(relation), destination_connection.rows(relation)
            if rows != destination_rows:
                yield Difference("ROWS", name, _rows_difference(rows, destination_rows))
    for name in sorted(destination_relations.keys() - source_relations.keys()):
        yield Difference("ROWS", name, "the relation is only in the copy")


def _rows_difference(source_rows: Counter[bytes], destination_rows: Counter[bytes]) -> str:
    missing, extra = source_rows - destination_rows, destination_rows - source_rows
    samples = [min(side)[:120] if side else b"" for side in (missing, extra)]
    return (
        f"{missing.total()} rows missing or changed, {extra.total()} others: {samples[0]!r} / {samples[1]!r}"
    )


class _Connection:
    """A superuser's session whose text is read whatever the database's encoding is."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self._session = psycopg.connect(server.url_of(database), password=server.password, autocommit=True)

    def __enter__(self) -> Self:
        (encoding,) = self.fetch("SELECT getdatabaseencoding()")[0]
        self._session.execute(
            f"SET client_encoding = '{'SQL_ASCII' if encoding == 'SQL_ASCII' else 'UTF8'}'".encode()
        )
        self._session.execute(_SETTINGS.encode())
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(map(_text, row)) for row in self._session.execute(_bytes(query)).fetchall()]

    def relations(self) -> dict[str, _Relation]:
        relations = [_Relation(*row) for row in self.fetch(_RELATIONS)]
        return {relation.name: relation for relation in relations}

    def rows(self, relation: _Relation) -> Counter[bytes]:
        """Return how often each row is there. A COPY of a table is not planned, so it reads where a query fails."""
        if relation.kind == "S":
            columns: Sequence[str] = ["last_value", "is_called"]
        else:
            columns = sorted(relation.columns)
        only = "ONLY " if relation.kind == "r" else ""
        queries = [f"(SELECT {', '.join(columns)} FROM {only}{relation.name})"]
        if relation.stored_columns:
            queries.append(f"{relation.name} ({', '.join(sorted(relation.stored_columns))})")
        for query in queries[:-1]:
            try:
                return self._copy(query)
            except psycopg.Error:
                continue
        return self._copy(queries[-1])

    def _copy(self, query: str) -> Counter[bytes]:
        rows: Counter[bytes] = Counter()
        with self._session.cursor() as cursor, cursor.copy(_bytes(f"COPY {query} TO STDOUT")) as copy:
            for row in copy:
                line = bytes(row)
                rows[line if len(line) < 200 else line[:120] + hashlib.sha256(line).digest()] += 1
        return rows


def _text(value: object) -> object:
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _bytes(query: str) -> bytes:
    return query.encode("utf-8", "surrogateescape")

"""Sakila, whose sample is a dump of PostgreSQL, taken apart so that the other engines can have it, too."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.samples import sample

_TABLE = re.compile(r"^CREATE TABLE (\w+) \((.*?)\n\)(?:\nINHERITS \((\w+)\))?;", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(
    r"^\s+(\w+) ((?:character varying|timestamp without time zone|[\w\[\]]+)(?:\([\d,]+\))?)(.*?),?$",
    re.MULTILINE,
)
_PRIMARY = re.compile(r"^ALTER TABLE ONLY (\w+)\n\s+ADD CONSTRAINT \w+ PRIMARY KEY \((.*?)\);", re.MULTILINE)
_FOREIGN = re.compile(
    r"^ALTER TABLE ONLY (\w+)\n\s+ADD CONSTRAINT (\w+) (FOREIGN KEY \(.*?\) REFERENCES .*?);", re.MULTILINE
)
_INDEX = re.compile(r"^CREATE (UNIQUE )?INDEX (\w+) ON (\w+) USING btree \((.*?)\);", re.MULTILINE)
_VIEW = re.compile(r"^CREATE VIEW (\w+) AS\n\s+(.*?);$", re.MULTILINE | re.DOTALL)
_ROWS = re.compile(r"^COPY public\.(\w+) \((.*?)\) FROM stdin;\n(.*?)^\\\.$", re.MULTILINE | re.DOTALL)
_ESCAPE = re.compile(r"\\(.)")
_CAST = re.compile(r"::(?:\w+ without time zone|\w+)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``type`` as PostgreSQL calls it, ``serial`` where a sequence gives its numbers."""

    name: str
    type: str
    not_null: bool
    serial: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table; ``foreign`` are constraints' names with their words, ``indexes`` are (unique, name, columns)."""

    name: str
    columns: tuple[Column, ...]
    check: str
    primary: str
    foreign: tuple[tuple[str, str], ...]
    indexes: tuple[tuple[bool, str, str], ...]


@dataclass(frozen=True, slots=True)
class Sakila:
    """All of it; of rows, values are what COPY prints, NULL is None."""

    tables: tuple[Table, ...]
    views: tuple[tuple[str, str], ...]
    rows: dict[str, list[tuple[str | None, ...]]]

    def columns(self, table: str) -> tuple[Column, ...]:
        return next(one.columns for one in self.tables if one.name == table)


def read_sakila() -> Sakila | None:
    """The sample, taken apart; None where it is not there."""
    schema, data = sample("sakila-postgres-schema.sql"), sample("sakila-postgres-data.sql")
    if schema is None or data is None:
        return None
    text = schema.read_text(encoding="utf-8")
    views = tuple((name, _CAST.sub("", query)) for name, query in _VIEW.findall(text))
    return Sakila(tuple(_tables(text)), views, dict(_rows(data.read_text(encoding="utf-8"))))


def _tables(text: str) -> Iterator[Table]:
    columns: dict[str, tuple[Column, ...]] = {}
    for name, body, parent in _TABLE.findall(text):
        columns[name] = columns[parent] if parent else tuple(_columns(body))
        yield Table(
            name,
            columns[name],
            _CAST.sub("", body.partition("CHECK ")[2].rstrip()),
            next((keys for table, keys in _PRIMARY.findall(text) if table == name), ""),
            tuple((key, words) for table, key, words in _FOREIGN.findall(text) if table == name),
            tuple((bool(one), key, on) for one, key, table, on in _INDEX.findall(text) if table == name),
        )


def _columns(body: str) -> Iterator[Column]:
    for name, type_, rest in _COLUMN.findall(body):
        yield Column(name, type_, "NOT NULL" in rest, "nextval" in rest)


def _rows(text: str) -> Iterator[tuple[str, list[tuple[str | None, ...]]]]:
    for name, _, lines in _ROWS.findall(text):
        yield name, [tuple(map(_value, line.split("\t"))) for line in lines.splitlines()]


def _value(word: str) -> str | None:
    if word == r"\N":
        return None
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), word)


def elements(array: str) -> list[str]:
    """The elements of an array's text: here none has a quote or a comma in it."""
    return [word.strip('"') for word in array[1:-1].split(",")]

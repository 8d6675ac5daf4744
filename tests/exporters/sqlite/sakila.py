"""Sakila in a file of SQLite: types mapped, the same rows, views, triggers and full-text search in its own words."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.sakila import Column, Sakila, Table

_TYPES = {
    "integer": "INTEGER",
    "boolean": "BOOLEAN",
    "bytea": "BLOB",
    "mpaa_rating": "TEXT CHECK (rating IN ('G', 'PG', 'PG-13', 'R', 'NC-17'))",
    "year": "INTEGER CHECK (release_year BETWEEN 1901 AND 2155)",
    "text[]": "TEXT",
    "timestamp without time zone": "TIMESTAMP",
    "tsvector": "TEXT",
}
_SEARCH = """
CREATE VIRTUAL TABLE film_text USING fts5(title, description, content = 'film', content_rowid = 'film_id');
CREATE TRIGGER film_text_insert AFTER INSERT ON film BEGIN
  INSERT INTO film_text (rowid, title, description) VALUES (new.film_id, new.title, new.description); END;
CREATE TRIGGER film_text_delete AFTER DELETE ON film BEGIN
  INSERT INTO film_text (film_text, rowid, title, description)
  VALUES ('delete', old.film_id, old.title, old.description);
END;
"""


def make_sakila(path: Path, sakila: Sakila) -> None:
    """Make and fill it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("".join(_table(table) for table in sakila.tables))
        connection.executescript("".join(f"CREATE VIEW {name} AS {query};" for name, query in sakila.views))
        connection.executescript(_SEARCH)
        for name, rows in sakila.rows.items():
            columns = sakila.columns(name)
            marks = ", ".join("?" * len(columns))
            values = [tuple(map(_value, columns, row)) for row in rows]
            connection.executemany(f"INSERT INTO {name} VALUES ({marks})", values)
        connection.executescript("".join(_trigger(table) for table in sakila.tables))
        connection.execute("ANALYZE")
        connection.commit()


def _table(table: Table) -> str:
    parts = [_column(column, table) for column in table.columns]
    if "," in table.primary:
        parts.append(f"PRIMARY KEY ({table.primary})")
    parts += [f"CONSTRAINT {name} {words}" for name, words in table.foreign]
    parts += [f"CHECK {table.check}"] if table.check else []
    indexes = (
        f"CREATE {'UNIQUE ' * one}INDEX {name} ON {table.name} ({on});" for one, name, on in table.indexes
    )
    without = " WITHOUT ROWID" if "," in table.primary else ""
    return f"CREATE TABLE {table.name} ({', '.join(parts)}){without};{''.join(indexes)}"


def _column(column: Column, table: Table) -> str:
    if column.name == table.primary:
        return f"{column.name} INTEGER PRIMARY KEY AUTOINCREMENT"
    default = " DEFAULT CURRENT_TIMESTAMP" if column.name == "last_update" else ""
    type_ = _TYPES.get(column.type, column.type.replace("character varying", "VARCHAR"))
    return f"{column.name} {type_}{' NOT NULL' * column.not_null}{default}"


def _trigger(table: Table) -> str:
    if table.name.startswith("payment"):
        return ""
    keys = " AND ".join(f"{key} = new.{key}" for key in table.primary.split(", "))
    return (
        f"CREATE TRIGGER {table.name}_last_updated AFTER UPDATE ON {table.name} BEGIN"
        f" UPDATE {table.name} SET last_update = CURRENT_TIMESTAMP WHERE {keys}; END;"
    )


def _value(column: Column, value: str | None) -> str | bytes | bool | None:
    if value is None:
        return None
    if column.type == "boolean":
        return value == "t"
    return bytes.fromhex(value.removeprefix("\\x")) if column.type == "bytea" else value

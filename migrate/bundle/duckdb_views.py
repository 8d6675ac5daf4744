"""The views through which DuckDB reads a source: one for each table, and one for a bucket's object index.

A view has the name of its table. It shows every column with its type, and next to it the side column ``<name>$exact``
where one exists. Names come from a source and are not believed: they are quoted, and have no control characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow

OBJECTS = "objects"
"""The view of a bucket's object index."""
_DEFAULT_SCHEMA = "main"
_RESERVED = {"information_schema", "memory", "pg_catalog", "system", "temp"}
"""Names that DuckDB reserves: a schema of such a name gets a ``_`` at its end."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HEAD = """\
-- The tables of one source as views. In the bundle's directory:  duckdb -init {key}
-- From elsewhere:  duckdb -cmd "SET file_search_path='/path/to/bundle'" -init /path/to/bundle/{key}
"""


class View(Struct, frozen=True):
    """A view: its schema and name in DuckDB, and the bucket or table that it shows."""

    schema: str
    name: str
    row: CatalogRow

    def create(self, files: Sequence[str], catalog: str = "") -> str:
        """Return the statement that makes it from these files, or patterns of files; ``catalog``: where."""
        names = [*([catalog] if catalog else []), self.schema, self.name]
        paths = ", ".join(map(_literal, files))
        paths = paths if len(files) == 1 else f"[{paths}]"
        united = "" if self.row.details.get("exact") == [] else ", union_by_name => true"
        label = ".".join(map(quote_name, names))
        return f"CREATE OR REPLACE VIEW {label} AS SELECT * FROM read_parquet({paths}{united});"


def views_of(rows: Iterable[CatalogRow]) -> list[View]:
    """Return the views of one source, each with another name: DuckDB takes names for equal that differ by case only, so
    the later table gets its number. Tables without columns, or without parts, have no view.
    """
    views: list[View] = []
    used: set[tuple[str, str]] = set()
    for row in rows:
        if row.has_rows and (not row.details.get("parts") or row.details.get("columns") == []):
            continue
        schema, name = (_clean(row.schema), _clean(row.name)) if row.has_rows else ("", OBJECTS)
        schema, name = schema or _DEFAULT_SCHEMA, name or "_"
        schema += "_" * (schema.lower() in _RESERVED)
        if (schema.lower(), name.lower()) in used:
            name = f"{name}_{row.number:04d}"
        while (schema.lower(), name.lower()) in used:
            name += "_"
        used.add((schema.lower(), name.lower()))
        views.append(View(schema, name, row))
    return views


def schemas_of(views: Iterable[View], catalog: str = "") -> list[str]:
    """Return the statements that make the schemas of these views."""
    prefix = f"{quote_name(catalog)}." if catalog else ""
    names = dict.fromkeys(view.schema for view in views if view.schema.lower() != _DEFAULT_SCHEMA)
    return [f"CREATE SCHEMA IF NOT EXISTS {prefix}{quote_name(name)};" for name in names]


def script(source: str, rows: Iterable[CatalogRow]) -> bytes:
    """Return ``data/<source>/duckdb.sql``: a statement a line, paths relative to the bundle."""
    views = views_of(rows)
    lines = [*schemas_of(views), *(view.create(_patterns(view.row)) for view in views)]
    head = _HEAD.format(key=layout.duckdb_script(source))
    return (head + "".join(f"{line}\n" for line in lines)).encode()


def quote_name(name: str) -> str:
    """Return an identifier in quotes."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _clean(name: str) -> str:
    return _CONTROL.sub("_", name)


def _patterns(row: CatalogRow) -> list[str]:
    """Return the files of a table or index, as patterns where one directory has all of them."""
    if not row.has_rows:
        names = ["index/*.parquet"]
    elif row.directory:
        names = [f"{row.directory}/*.parquet"]
    else:
        names = [str(part["name"]) for part in row.parts]
    return [layout.source_file(row.source, name) for name in names]

"""SQL over a bundle, by DuckDB: each table is a view (see ``migrate.bundle.duckdb_views``), each source a catalog.

The statement may come from anybody, and so may the bundle. DuckDB reads the parts that catalog and manifest name,
through our own storage, and no other file; it loads no extension; its settings are locked. Only queries are run.
"""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from exporters.lossless_text import is_utf_8, printable
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.duckdb_views import quote_name, schemas_of, views_of
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError, UsageError

if TYPE_CHECKING:
    import duckdb

    from migrate.browse.bundle_filesystem import BundleFileSystem

_ROWS_AT_ONCE = 1000
_RESERVED = {"memory", "system", "temp"}
"""Catalogs that DuckDB has itself: a source of such a name gets a ``_`` at its end."""
_SIGNED = {"tinyint", "smallint", "integer", "bigint", "hugeint"}
_NUMBERS = {"boolean", *_SIGNED, *(f"u{name}" for name in _SIGNED)}
_NESTED = {"list", "array", "struct", "map", "union", "float", "double"}
"""Types whose values come as JSON texts; floating-point numbers are text where JSON has no number for them."""
_KEY = re.compile(r"bundle://(data/[a-z0-9._/-]+)")


class Result(Struct, frozen=True):
    """A query's columns (names, types in DuckDB's words) and its rows, streamed."""

    names: Sequence[str]
    types: Sequence[str]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def run(reader: BundleReader, sql: str, *, as_json: bool) -> Iterator[Result]:
    """Run one query. Values are text as DuckDB prints it, None for NULL; with ``as_json`` numbers and booleans as they
    are, binary values as base64, and lists, structs and maps as JSON.

    Raises ``UsageError`` for a statement that is no query or makes no sense, ``DamageError``, the location's errors.
    """
    with connected(reader, sql) as (duck, query):
        yield _result(duck, query, as_json=as_json)


@contextmanager
def connected(reader: BundleReader, sql: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """Yield a connection that has the views that ``sql`` needs and reaches nothing else, and its one query. Raises like
    ``run``.
    """
    duck, filesystem = _connect(reader)
    with duck, tempfile.TemporaryDirectory(prefix="moveout-") as spill, _translated(filesystem):
        query = _query(duck, sql)
        _create_views(duck, reader, query, filesystem)
        _lock(duck, spill)
        yield duck, query


def _connect(reader: BundleReader) -> tuple[duckdb.DuckDBPyConnection, BundleFileSystem]:
    try:
        import duckdb  # noqa: PLC0415  an extra

        from migrate.browse.bundle_filesystem import BundleFileSystem  # noqa: PLC0415  needs one, too
    except ImportError as exc:
        raise UsageError(
            f"SQL over a bundle needs {exc.name}, which is not installed",
            next_step="pip install 'moveout[sql]'",
        ) from exc
    filesystem = BundleFileSystem(
        reader.store, {file.key: file.size_bytes for file in reader.files(layout.DATA)}
    )
    off = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    duck = duckdb.connect(config={**off, "python_enable_replacements": False})
    duck.register_filesystem(filesystem)
    return duck, filesystem


def _query(duck: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Return the one query of ``sql`` without its semicolon. Raises ``UsageError``."""
    import duckdb  # noqa: PLC0415

    if not is_utf_8(sql):
        raise UsageError(
            f"{printable(sql)!r} is not UTF-8", next_step="use a terminal and a locale with UTF-8"
        )
    statements = duck.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UsageError(
            "a bundle is only read: one query is run, and nothing else",
            next_step='write one query, in quotes: "SELECT …"',
        )
    return str(statements[0].query).strip().rstrip(";")


def _create_views(
    duck: duckdb.DuckDBPyConnection, reader: BundleReader, query: str, filesystem: BundleFileSystem
) -> None:
    """Make the views that the query names, all where it names anything else: to make one, DuckDB opens its files."""
    catalog = reader.catalog()
    views = {source: views_of(row for row in catalog if row.source == source) for source in reader.sources}
    named_tables = _named_tables(query)
    known = {view.name.lower() for some in views.values() for view in some}
    everything = not named_tables or not named_tables <= known
    for source, some in views.items():
        name = source + "_" * (source in _RESERVED)
        duck.execute(f"ATTACH ':memory:' AS {quote_name(name)}")
        for statement in schemas_of(some, name):
            duck.execute(statement)
        for view in some:
            if everything or view.name.lower() in named_tables:
                keys = _files(view.row, filesystem)
                duck.execute(view.create([f"{filesystem.protocol}://{key}" for key in keys], name))
        if len(views) == 1:
            duck.execute(f"USE {quote_name(name)}")


def _named_tables(query: str) -> set[str]:
    """Return the names of tables in a query, without schemas, in small letters; none where DuckDB cannot tell yet."""
    import duckdb  # noqa: PLC0415

    with duckdb.connect(config={"enable_external_access": False}) as closed:
        try:
            return {name.lower() for name in closed.get_table_names(query)}
        except duckdb.Error:
            return set()


def _files(row: CatalogRow, filesystem: BundleFileSystem) -> list[str]:
    """Return the keys of a table's parts, or of the files of a bucket's index. Raises ``DamageError`` for a part that
    the manifest does not have.
    """
    if not row.has_rows:
        return filesystem.keys(layout.source_file(row.source, "index/objects-"))
    keys = [layout.source_file(row.source, str(part["name"])) for part in row.parts]
    for key in keys:
        if not filesystem.has(key):
            raise DamageError(
                layout.CATALOG, expected=f"parts of {row.name} that are in the manifest", found=key
            )
    return keys


def _lock(duck: duckdb.DuckDBPyConnection, spill: str) -> None:
    """Let the query reach nothing but the bundle. ``spill``: a directory for what is too large for memory."""
    duck.execute("SET TimeZone = 'UTC'")
    duck.execute(f"SET temp_directory = '{spill}'")
    duck.execute("SET allowed_directories = ['bundle://']")
    duck.execute("SET enable_external_access = false")
    duck.execute("SET lock_configuration = true")


def _result(duck: duckdb.DuckDBPyConnection, query: str, *, as_json: bool) -> Result:
    relation = duck.sql(query)
    kinds = [type_.id for type_ in relation.types]
    columns = [f"c{number}" for number in range(len(kinds))]
    value = _json_value if as_json else _text_value
    values = ", ".join(map(value, columns, kinds))
    names, types = list(relation.columns), [str(type_) for type_ in relation.types]
    statement = f"SELECT {values} FROM (\n{query}\n) AS q({', '.join(columns)})"
    _interruptible(duck, duck.execute, statement)
    return Result(names, types, _rows(duck, [as_json and kind in _NESTED for kind in kinds]))


def _interruptible(duck: duckdb.DuckDBPyConnection, work: Callable[[Any], Any], argument: object) -> Any:
    """Do work of DuckDB's in another thread, and end it where this one is interrupted. In its own thread DuckDB ends
    minutes after Ctrl-C, as an error.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="moveout-sql") as threads:
        future = threads.submit(work, argument)
        try:
            return future.result()
        except BaseException:
            duck.interrupt()
            raise


def _text_value(column: str, kind: str) -> str:
    del kind
    return f"{column}::VARCHAR"


def _json_value(column: str, kind: str) -> str:
    """Return the expression of a value that JSON can hold."""
    if kind in _NUMBERS:
        return column
    if kind in {"float", "double"}:
        return f"CASE WHEN isfinite({column}) THEN to_json({column}) ELSE to_json({column}::VARCHAR) END"
    if kind in _NESTED:
        return f"to_json({column})"
    return f"to_base64({column})" if kind == "blob" else f"{column}::VARCHAR"


def _rows(duck: duckdb.DuckDBPyConnection, parsed: Sequence[bool]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows; ``parsed``: which columns are JSON texts."""
    while batch := _interruptible(duck, duck.fetchmany, _ROWS_AT_ONCE):
        if not any(parsed):
            yield from batch
            continue
        for row in batch:
            yield tuple(
                json.loads(value) if is_json and value is not None else value
                for value, is_json in zip(row, parsed, strict=True)
            )


@contextmanager
def _translated(filesystem: BundleFileSystem) -> Iterator[None]:
    """Turn DuckDB's errors into ours: what the location said, a file that is damaged, else a wrong statement."""
    import duckdb  # noqa: PLC0415

    try:
        yield
    except duckdb.Error as exc:
        if filesystem.error is not None:
            raise filesystem.error from exc
        if (match := _KEY.search(str(exc))) is not None and filesystem.has(match[1]):
            raise DamageError(match[1], expected="a readable Parquet file", found=str(exc)[:300]) from exc
        raise UsageError(
            f"DuckDB: {exc}", next_step=f"moveout ls {shlex.quote(filesystem.location)} shows the tables"
        ) from exc

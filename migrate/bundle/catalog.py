"""The tables that say what a bundle holds: ``data/catalog.parquet``, ``data/losses.parquet`` and
``data/gaps.parquet``.

Rows are ordered (source, then as the source gave them, or by item), so that the same bundle has the same
bytes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TypedDict, TypeVar

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict, astuple

from exporters.api import CatalogEntry, Gap, ItemKind, Json, Loss
from exporters.sql.bounded_parquet import FREE_BYTES, rows_of
from exporters.sql.whole_parquet import reading
from migrate.bundle import canonical_json, layout
from migrate.errors import DamageError

if TYPE_CHECKING:
    import pyarrow as pa

_LOSSES = ("source", *Loss.__struct_fields__)
_GAPS = ("source", *Gap.__struct_fields__)
_INTEGERS = {"number", "items", "size_bytes"}
_JSON = ("position", "details")
_BATCH = 20_000
_GROUP_BYTES = 16 * 2**20
"""So many bytes of texts at most make a row group, so that each unpacks to less than readers take."""
_RATIO = 4096
"""The texts of a catalog may take ``FREE_BYTES``, and so many for each byte of the file: it is kept in memory.
Definitions of 30 kB that differ in a name take ten bytes in the file.
"""
T = TypeVar("T")


class CatalogRow(Struct, frozen=True):
    """One row of the catalog: a table, materialized view or bucket of one source. ``directory``: where all of its
    parts lie, relative to ``data/<source>/``, "" where there are none. ``position`` is that of the newest snapshot, {}
    without any.
    """

    source: str
    kind: ItemKind
    number: int
    schema: str
    name: str
    directory: str
    items: int
    size_bytes: int
    digest: str
    position: Json
    details: Json

    @property
    def key(self) -> tuple[str, str]:
        """Schema and name."""
        return self.schema, self.name

    @property
    def full_name(self) -> str:
        """The name with its schema, where it has one: ``shop.orders``."""
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def parts(self) -> Sequence[Json]:
        """The ``name`` and ``rows`` of each of its files; names are relative to ``data/<source>/``. Raises
        ``DamageError`` where the catalog does not have them.
        """
        return self._listed("parts")

    @property
    def columns(self) -> Sequence[Json]:
        """What the catalog has of each column, its ``name`` at least; empty where it has none. Engines of other
        packages may list names alone.
        """
        listed = self.details.get("columns", ())
        return [{"name": column} if isinstance(column, str) else column for column in listed]

    @property
    def column_names(self) -> Sequence[str]:
        """The names of a table's columns. Raises ``DamageError`` where the catalog does not have them."""
        self._listed("columns")
        return [column["name"] for column in self.columns]

    def _listed(self, what: str) -> Sequence[Json]:
        if what not in self.details:
            raise DamageError(layout.CATALOG, expected=f"the {what} of {self.full_name}", found="none")
        listed: Sequence[Json] = self.details[what]
        return listed

    @property
    def has_rows(self) -> bool:
        """Whether it holds rows, in Parquet parts; a bucket holds objects."""
        return self.kind != "bucket"


def did_you_mean(name: str, tables: Iterable[CatalogRow]) -> str:
    """Ask whether the table was meant whose name is most like one that no table has: a question and a space, or ""."""
    from difflib import get_close_matches  # noqa: PLC0415  few names are misspelt

    names = {word.lower(): row.full_name for row in tables for word in (row.name, row.full_name)}
    close = get_close_matches(name.lower(), names, n=1)
    return f"did you mean {names[close[0]]}? " if close else ""


_CATALOG = CatalogRow.__struct_fields__


def write_catalog(file: BinaryIO, rows: Iterable[CatalogRow]) -> None:
    """Write ``catalog.parquet``."""
    _write(file, _CATALOG, map(row_values, rows))


def catalog_row(source: str, entry: CatalogEntry, position: Json) -> CatalogRow:
    """Return the catalog's row for what a source says of one table or bucket."""
    return CatalogRow(source, directory=_directory(entry), position=position, **asdict(entry))


def _directory(entry: CatalogEntry) -> str:
    """Return the directory that holds every part of a table, "" where there is none."""
    parents = {str(part["name"]).rpartition("/")[0] for part in entry.details.get("parts", ())}
    return parents.pop() if len(parents) == 1 else ""


def write_losses(file: BinaryIO, rows: Iterable[tuple[str, Loss]]) -> int:
    """Write (source, loss) pairs as ``losses.parquet``; return how many."""
    return _write(file, _LOSSES, ((source, *astuple(loss)) for source, loss in rows))


def write_gaps(file: BinaryIO, rows: Iterable[tuple[str, Gap]]) -> int:
    """Write (source, gap) pairs as ``gaps.parquet``; return how many."""
    return _write(file, _GAPS, ((source, *astuple(gap)) for source, gap in rows))


def read_catalog(file: Any, key: str) -> list[CatalogRow]:
    """Read what ``write_catalog`` wrote, from a file that pyarrow can read. Raises ``DamageError`` that
    names ``key``.
    """
    texts = _Texts(FREE_BYTES + _RATIO * file.seek(0, os.SEEK_END))
    rows = list(_read(file, key, _CATALOG, lambda row: _to_catalog_row(row, texts)))
    _check_once(key, "table", ((row.source, row.schema, row.name) for row in rows))
    _check_once(
        key, "part", ((row.source, part["name"]) for row in rows for part in row.details.get("parts", ()))
    )
    return rows


def _check_once(key: str, what: str, names: Iterable[tuple[str, ...]]) -> None:
    """Raise ``DamageError`` where one of ``names`` is there twice: each begins with its source."""
    for (source, *name), count in Counter(names).most_common(1):
        if count > 1:
            found = f"{'.'.join(filter(None, name))} of {source} {count} times"
            raise DamageError(key, expected=f"each {what} once", found=found)


def read_losses(file: Any, key: str) -> Iterator[tuple[str, Loss]]:
    """Read what ``write_losses`` wrote, streamed."""
    return _read(
        file,
        key,
        _LOSSES,
        lambda row: (row["source"], Loss(row["item"], row["property"], row["reason"])),
    )


def read_gaps(file: Any, key: str) -> Iterator[tuple[str, Gap]]:
    """Read what ``write_gaps`` wrote, streamed."""
    return _read(
        file,
        key,
        _GAPS,
        lambda row: (row["source"], Gap(row["item"], row["disposition"], row["reason"])),
    )


def row_values(row: CatalogRow) -> tuple[Any, ...]:
    """Return the values of a row as they stand in the file."""
    values = {name: getattr(row, name) for name in _CATALOG}
    for name in _JSON:
        values[name] = canonical_json.encode(values[name]).decode("ascii")
    return tuple(values.values())


_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Part(TypedDict):
    name: str
    rows: _Count


class _Column(TypedDict):
    name: str


class _Details(TypedDict, total=False):
    parts: list[_Part]
    columns: list[_Column | str]
    ancestors: list[tuple[str, str]]
    extension: str
    history: tuple[str, str] | bool
    shadow_of: str


class _Checked(TypedDict):
    """What readers take from a row as it is. The rest of ``details`` is of the source's own making."""

    kind: ItemKind
    number: _Count
    items: _Count
    size_bytes: _Count
    digest: Annotated[str, Meta(pattern=r"\A(?:[0-9a-f]{32})?\Z")]
    details: _Details


class _Texts:
    """The texts of a catalog's rows. Rows that have the same share it: they take memory once."""

    def __init__(self, most_bytes: int) -> None:
        self._left_bytes = most_bytes
        self._known: dict[str, str] = {}
        self._parsed: dict[str, Json] = {}

    def shared(self, text: str) -> str:
        """Return the text. Raises ``ValueError`` where all of them take more memory than they may."""
        known = self._known.setdefault(text, text)
        if known is text:
            self._left_bytes -= len(text)
            if self._left_bytes < 0:
                raise ValueError("its texts unpack to more than they may")
        return known

    def parsed(self, text: str) -> Json:
        """Return the JSON object. Raises ``ValueError``, also where it is none."""
        if text not in self._parsed:
            value = json.loads(self.shared(text))
            if not isinstance(value, dict):
                raise ValueError("position and details are no JSON objects")
            self._parsed[text] = value
        return self._parsed[text]


def _to_catalog_row(row: dict[str, Any], texts: _Texts) -> CatalogRow:
    if row["directory"] and not layout.is_payload_name(row["directory"]):
        raise ValueError(f"{row['directory']!r} cannot be a directory of a bundle")
    values: dict[str, Any] = {
        name: texts.shared(value) if isinstance(value, str) else value
        for name, value in row.items()
        if name not in _JSON
    }
    values |= {name: texts.parsed(row[name]) for name in _JSON}
    for part in msgspec.convert(values, _Checked)["details"].get("parts", ()):
        if not layout.is_payload_name(part["name"]):
            raise ValueError(f"{part['name']!r} cannot be a file of a bundle")
    return CatalogRow(**values)


def losses_schema() -> pa.Schema:
    """Return the columns of the list of losses."""
    return _schema(_LOSSES)


def _schema(names: Sequence[str]) -> pa.Schema:
    import pyarrow as pa  # noqa: PLC0415  a third of a second of a start, and many commands read no Parquet

    types = (pa.int64() if name in _INTEGERS else pa.string() for name in names)
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in zip(names, types, strict=True)])


def _write(file: BinaryIO, names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> int:
    import pyarrow as pa  # noqa: PLC0415  see _schema
    import pyarrow.parquet as pq  # noqa: PLC0415

    count, schema = 0, _schema(names)
    rows = iter(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := list(_group(rows)):
            count += len(batch)
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*batch, strict=True), schema, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return count


def _group(rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of one row group."""
    texts_bytes = 0
    for row in islice(rows, _BATCH):
        yield row
        texts_bytes += sum(len(value) for value in row if isinstance(value, str))
        if texts_bytes > _GROUP_BYTES:
            return


def _read(file: Any, key: str, names: Sequence[str], convert: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    with reading(key, "a Parquet file of the bundle's own"):
        schema = _schema(names)
        for batch in rows_of(file, _BATCH, schema.names):
            rows = batch if batch.schema.equals(schema) else batch.select(schema.names).cast(schema)
            yield from map(convert, rows.to_pylist())

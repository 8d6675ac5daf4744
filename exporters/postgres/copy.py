"""One chunk of rows: COPY text in, Parquet parts out, digested on the way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from exporters.base import Sink
from exporters.errors import SourceError
from exporters.postgres.digest import Tally, tally_block, tally_empty_rows
from exporters.postgres.feed import OnBlock
from exporters.postgres.parse import Layout, Typed, parse_block, parse_exactly
from exporters.postgres.render import joined, lines_of

BLOCK_BYTES = 8 * 2**20
"""Text that becomes one row group. A worker holds about five times as much."""
_SAMPLE_ROWS = 20_000
_FEW = 0.2
"""A column whose sample has at most this share of distinct values is written with a dictionary."""


@dataclass(frozen=True, slots=True)
class Part:
    """A Parquet file of the chunk: its name relative to ``data/<source>/``."""

    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class Copied:
    """What a chunk came to. ``text_bytes`` of CSV from the server; ``exact`` the columns that needed a side column."""

    rows: int
    text_bytes: int
    digest: int
    parts: tuple[Part, ...]
    exact: tuple[str, ...]


def copy_chunk(stream: Callable[[OnBlock], int], layout: Layout, sink: Sink, stem: str) -> Copied:
    """Export what ``stream`` delivers into ``<stem>.parquet`` (and ``<stem>-1.parquet`` … where a block needs a side
    column that the file has not). Raises ``SourceError`` if the server's count of rows is another.
    """
    with _Writer(layout, sink, stem) as writer:
        blocks = _Blocks(writer)
        said = stream(blocks.add)
        blocks.flush()
        if not layout.columns:
            writer.add_empty_rows(said)
            blocks.tally = tally_empty_rows(said)
        rows = blocks.tally.rows
        if rows != said:
            raise SourceError(
                f"{stem}: the server sent {said} rows, {rows} arrived",
                next_step="Give the same command again; if it stays so, please report it.",
            )
    return Copied(rows, blocks.text_bytes, blocks.tally.digest, writer.parts(), writer.exact())


class _Blocks:
    """Collects pieces until a block is worth parsing."""

    def __init__(self, writer: _Writer) -> None:
        self._writer = writer
        self._pieces: list[bytes] = []
        self._size = 0
        self._checked = False
        self.text_bytes = 0
        self.tally = Tally()

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Parse, check and write what was collected."""
        if not self._size:
            return
        block = b"".join(self._pieces)
        self._pieces.clear()
        self.text_bytes += self._size
        self._size = 0
        layout = self._writer.layout
        if not layout.columns:
            return
        typed = parse_block(block, layout)
        tally = tally_block(block)
        if not self._checked or typed.rows != tally.rows:
            typed = _proved(typed, block, tally, layout)
            self._checked = True
        self.tally += tally
        self._writer.add(typed)


def _proved(typed: Typed, block: bytes, tally: Tally, layout: Layout) -> Typed:
    """Return ``typed`` if it renders to the same rows again, else what the slow way makes of the block.

    Done for the first block of every chunk. The other blocks rest on the argument in ``types`` for the kinds that are not
    compared value by value; ``verify --level full`` renders everything.
    """
    if _tally_of(typed, layout) == tally:
        return typed
    exact = parse_exactly(block, layout)
    if _tally_of(exact, layout) != tally:
        raise SourceError(
            "rows do not come out of Parquet as they went in",
            next_step="Please report the table's definition; nothing of it was written.",
        )
    return exact


def _tally_of(typed: Typed, layout: Layout) -> Tally:
    return tally_block(joined(lines_of(typed.batch(layout, frozenset(typed.sides)))))


@dataclass
class _Open:
    """The file that is being written."""

    name: str
    sides: frozenset[int]
    writer: pq.ParquetWriter
    undo: ExitStack
    rows: int = 0


@dataclass
class _Writer:
    """Writes row groups; begins another file when a side column has to be added."""

    layout: Layout
    sink: Sink
    stem: str
    _file: _Open | None = None
    _done: list[Part] = field(default_factory=list)
    _sides: frozenset[int] = frozenset()

    def add(self, typed: Typed) -> None:
        """Write one row group."""
        file = self._file
        if file is None or not typed.sides.keys() <= file.sides:
            self._finish()
            self._sides |= frozenset(typed.sides)
            file = self._begin(typed)
        file.writer.write_batch(typed.batch(self.layout, file.sides), row_group_size=max(typed.rows, 1))
        file.rows += typed.rows

    def add_empty_rows(self, rows: int) -> None:
        """Write nothing but the file: a table without columns has a count of rows only."""
        self._file = self._begin(Typed((), {}, 0))
        self._file.rows = rows

    def parts(self) -> tuple[Part, ...]:
        return tuple(self._done)

    def exact(self) -> tuple[str, ...]:
        return tuple(self.layout.columns[i].name for i in sorted(self._sides))

    def _begin(self, typed: Typed) -> _Open:
        number = len(self._done)
        name = f"{self.stem}-{number}.parquet" if number else f"{self.stem}.parquet"
        undo = ExitStack()
        try:
            stream = undo.enter_context(self.sink.create(name))
            buffered = pa.BufferedOutputStream(pa.PythonFile(stream, mode="w"), 2**20)
            undo.callback(buffered.detach)
            writer = undo.enter_context(_parquet_writer(buffered, self.layout, self._sides, typed))
        except BaseException as exc:
            undo.__exit__(type(exc), exc, exc.__traceback__)
            raise
        self._file = _Open(name, self._sides, writer, undo)
        return self._file

    def _finish(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.undo.close()
            self._done.append(Part(file.name, file.rows))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            if self._file is None and not self._done:
                self._file = self._begin(_nothing(self.layout))
            self._finish()
        elif self._file is not None:
            self._file.undo.__exit__(kind, error, None)


def _nothing(layout: Layout) -> Typed:
    return Typed(tuple(pa.array([], field.type) for field in layout.fields), {}, 0)


def _parquet_writer(
    stream: pa.NativeFile, layout: Layout, sides: frozenset[int], sample: Typed
) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        stream,
        layout.schema(sides),
        compression="zstd",
        compression_level=1,
        use_dictionary=_with_dictionary(layout, sample) or False,
        store_decimal_as_integer=True,
        write_page_checksum=False,
    )


def _with_dictionary(layout: Layout, sample: Typed) -> list[str]:
    """Return the columns of few distinct values, judged by the first rows."""
    if not sample.rows:
        return []
    names = []
    for field_, values in zip(layout.fields, sample.columns, strict=True):
        head = values[:_SAMPLE_ROWS]
        head = head.storage if isinstance(head, pa.ExtensionArray) else head
        if pc.count_distinct(head).as_py() <= _FEW * len(head):
            names.append(field_.name)
    return names

"""Values that are never whole in memory: their text is read and made again in pieces, and any reader finds them."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_intdigest

from exporters.mysql.rows import long_rows
from exporters.mysql.rows.column_types import SqlType as MySqlType
from exporters.mysql.rows.column_types import kind_of as mysql_kind
from exporters.mysql.rows.long_rows import payload_pieces, read_payload
from exporters.postgres.part_reader import digest_part
from exporters.postgres.rows import long_lines
from exporters.postgres.rows.column_types import SqlType, kind_of
from exporters.postgres.rows.csv_rows import lines_of
from exporters.postgres.rows.long_lines import line_pieces, read_line
from exporters.row_digest import RowsDigest
from exporters.sql.columns import Kind, Layout
from exporters.sql.large_values.long_values import LongRow, Spool
from exporters.sql.parquet_read import leaves_of, open_part, rows_of
from exporters.sql.parquet_write import PartWriter
from tests.exporters.mysql.test_protocol_rows import length_encoded

SHORT, LONG = 20, 60
"""What is long, in these tests."""


@dataclass(frozen=True)
class Column:
    name: str
    kind: Kind
    sql_type: str = ""
    not_null: bool = False
    generated: bool = False
    collation: str = ""


@pytest.fixture(autouse=True, scope="module")
def lengths():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_lines, "SHORT_BYTES", SHORT)
        patch.setattr(long_lines, "LONG_BYTES", LONG)
        patch.setattr(long_rows, "SHORT_BYTES", SHORT)
        yield


def typed(name: str, *, list_of: str = "") -> Kind:
    inner = (SqlType(list_of, True, -1),) if list_of else ()
    return kind_of(SqlType(name, True, -1, "list" if list_of else "", inner))


LINES = Layout.of(
    [
        Column("n", typed("int4")),
        Column("t.x", typed("text")),
        Column("b", typed("bytea")),
        Column("j", typed("json")),
        Column("list", typed("_int4", list_of="int4")),
        Column("last", typed("text")),
    ]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50) | st.text(
    '",\n\\x', max_size=80
)
LISTS = st.none() | st.lists(st.integers(-9, 10**9), max_size=12).map(
    lambda numbers: "{" + ",".join(map(str, numbers)) + "}"
)


def csv(value: str | None) -> bytes:
    """PostgreSQL's CopyAttributeOutCSV."""
    if value is None:
        return b""
    special = any(one in value for one in '",\n\r') or not value
    return ('"' + value.replace('"', '""') + '"' if special else value).encode()


@st.composite
def lines(draw):
    values = [
        draw(st.none() | st.integers(-99, 99).map(str)),
        draw(st.none() | TEXTS),
        draw(st.none() | st.binary(max_size=90).map(lambda data: "\\x" + data.hex())),
        draw(st.none() | TEXTS.map(lambda text: f'"{text}"')),
        draw(LISTS),
        draw(st.none() | TEXTS),
    ]
    return b",".join(map(csv, values))


CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, turn = [], 0
    while data:
        size = sizes[turn % len(sizes)]
        pieces.append(data[:size])
        data, turn = data[size:], turn + 1
    return pieces


@contextlib.contextmanager
def read(reader, layout, pieces):
    with Spool() as spool:
        yield reader(iter(pieces), layout, spool)


@given(lines(), CUTS)
@settings(max_examples=40, deadline=None)
def test_a_line_in_pieces_is_the_line(line, sizes):
    with read(read_line, LINES, cut(line, sizes)) as row:
        batch = LINES.batch(row.typed)
        assert b"".join(line_pieces(LongRow(batch, row.long))) == line
        assert row.digest == xxh3_128_intdigest(line)
        assert row.text_bytes == len(line) + 1
        assert set(row.long) <= {"t.x", "b", "j", "last", "list$exact"}


def my(name: str, charset: str = "") -> Kind:
    return mysql_kind(MySqlType(name, name, 0, 0, 0, charset))


PAYLOADS = Layout.of(
    [
        Column("n", my("int")),
        Column("t", my("text", "utf8mb4")),
        Column("b", my("blob")),
        Column("c", my("text", "utf16")),
        Column("j", my("json")),
    ]
)


@st.composite
def payloads(draw):
    characters = TEXTS.map(str.encode)
    values = [
        draw(st.none() | st.integers(-99, 99).map(lambda n: str(n).encode())),
        draw(st.none() | characters | st.binary(min_size=1, max_size=60)),
        draw(st.none() | st.binary(max_size=300)),
        draw(
            st.none()
            | characters.filter(lambda text: not text.startswith(b"\\x"))
            | st.binary(min_size=1, max_size=60).map(lambda data: b"\\x" + data.hex().upper().encode())
        ),
        draw(st.none() | characters),
    ]
    return b"".join(map(length_encoded, values))


@given(payloads(), CUTS)
@settings(max_examples=40, deadline=None)
def test_a_payload_in_pieces_is_the_payload(payload, sizes):
    with read(read_payload, PAYLOADS, cut(payload, sizes)) as row:
        batch = PAYLOADS.batch(row.typed)
        assert b"".join(payload_pieces(LongRow(batch, row.long))) == payload
        assert (row.digest, row.text_bytes) == (xxh3_128_intdigest(payload), len(payload))


class ToDirectory:
    """A sink."""

    def __init__(self, directory):
        self.directory = directory

    def create(self, name, *, size_bytes=0):
        return (self.directory / name).open("wb")

    def advance(self, *, items=0, size_bytes=0):
        pass


LONG_LINES = [
    b'1,"%s",\\x%s,"""%s""","{1,2}",' % (b'a "",\n' * 40_000, b"00ff" * 70_000, b"j" * 200_000),
    b'2,,,,"{%s}",last' % b",".join(b"%d" % n for n in range(30_000)),
    b"3,short,\\x00,,,%s" % (b"z" * 100_000),
]
SHORT_LINES = b'4,x,\\x01,"""j""",{3},y\n5,,,,,\n'


@pytest.fixture
def part(tmp_path, monkeypatch):
    """A file with rows of both kinds, by turns."""
    monkeypatch.setattr(long_lines, "SHORT_BYTES", 2**16)
    monkeypatch.setattr(long_lines, "LONG_BYTES", 2**16)
    block = long_lines.parse_block(SHORT_LINES, LINES)
    with PartWriter(LINES, ToDirectory(tmp_path), "part") as writer:
        for line in LONG_LINES:
            writer.add(block, len(SHORT_LINES))
            with read(read_line, LINES, cut(line, [2**15])) as row:
                writer.add_long(row.typed, row.long)
        writer.add(block, len(SHORT_LINES))
        parts = writer.finish()
    assert sum(one.rows for one in parts) == 11
    return [tmp_path / one.name for one in parts]


def test_what_was_written_is_read_in_pieces(part):
    texts = []
    for path in part:
        for some in rows_of(open_part(path)):
            if isinstance(some, LongRow):
                texts.append(b"".join(line_pieces(some)))
            else:
                texts += lines_of(some)
    wanted = SHORT_LINES.splitlines()
    assert texts == [
        *wanted,
        LONG_LINES[0],
        *wanted,
        LONG_LINES[1],
        *wanted,
        LONG_LINES[2],
        *wanted,
    ]
    digest = sum((digest_part(path, 0) for path in part), RowsDigest())
    assert digest == RowsDigest(11, sum(map(xxh3_128_intdigest, texts)) % 2**128)


def read_by_pandas(path, column):
    """The values of a column as pandas has them. Where it can be imported, pyarrow imports it: so tests do without."""
    program = (
        "import json, sys, pandas; column = pandas.read_parquet(sys.argv[1])[sys.argv[2]];"
        "json.dump(column[column.notna()].tolist(), sys.stdout)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path, column],
        env={**os.environ, "PYTHONPATH": ".venv/readers"},
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_any_reader_finds_the_values_whole(part):
    import polars as pl  # not by every process that collects tests

    text, data = 'a ",\n' * 40_000, b"\0\xff" * 70_000
    for path in part:
        table = pq.read_table(path)
        rows = {row["n"]: row for row in table.to_pylist()}
        assert read_by_pandas(path, "t.x") == [text for text in table["t.x"].to_pylist() if text is not None]
        assert pl.read_parquet(path)["b"].to_list() == table["b"].to_pylist()
        answer = duckdb.sql(f"""SELECT n, "t.x", b, last FROM '{path}'""").fetchall()
        assert answer == list(
            zip(*(table[name].to_pylist() for name in ("n", "t.x", "b", "last")), strict=True)
        )
        if 1 in rows:
            assert (rows[1]["t.x"], rows[1]["b"], rows[1]["j"]) == (text, data, f'"{"j" * 200_000}"')
        if 2 in rows:
            numbers = ",".join(map(str, range(30_000)))
            assert (rows[2]["list"], rows[2]["list$exact"]) == (None, "{" + numbers + "}")
        if 3 in rows:
            assert (rows[3]["t.x"], rows[3]["last"]) == ("short", "z" * 100_000)


def test_a_damaged_value_is_told(part):
    path = part[-1]
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(5)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 20] ^= 0xFF
    with pytest.raises((OSError, ValueError, pa.ArrowException)):
        list(map(len, _pieces(io.BytesIO(data))))


def _pieces(file):
    for some in rows_of(open_part(file)):
        if isinstance(some, LongRow):
            yield from line_pieces(some)


def test_leaves_are_counted_as_parquet_has_them():
    schema = pa.schema(
        [
            pa.field("a", pa.int32()),
            pa.field("s", pa.struct([("x", pa.int8()), ("y", pa.list_(pa.int8()))])),
            pa.field("m", pa.map_(pa.string(), pa.int8())),
            pa.field("u", pa.uuid()),
        ]
    )
    out = io.BytesIO()
    pq.write_table(schema.empty_table(), out)
    paths = [pq.ParquetFile(out).schema.column(i).path.split(".")[0] for i in range(6)]
    assert leaves_of(schema) == {
        "a": range(1),
        "s": range(1, 3),
        "m": range(3, 5),
        "u": range(5, 6),
    }
    assert paths == ["a", "s", "s", "m", "m", "u"]

"""Values against the server itself, not against what we believe of it."""

import io
import json
import math
import struct
from datetime import UTC, datetime, timedelta

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.postgres.catalog import read_columns
from exporters.postgres.connect import connect, parse_url
from exporters.postgres.types import SqlType, kind_of
from exporters.relational.floats import server_text
from exporters.relational.layout import Layout
from exporters.relational.parse import parse_block, split
from exporters.relational.render import joined, lines_of, text_of

FLOATS = st.lists(st.floats(width=64, allow_subnormal=True), min_size=1, max_size=200)
quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def server(postgres):
    with connect(parse_url(postgres.url)) as connection:
        yield connection


def texts(server: psycopg.Connection, sql_type: str, values: list) -> list[str]:
    rows = server.execute(
        f"SELECT v::text FROM unnest(%s::{sql_type}[]) WITH ORDINALITY AS u(v, n) ORDER BY n", [values]
    )
    return [row[0] for row in rows]


def kind(name: str, modifier: int = -1):
    return kind_of(SqlType(name, built_in=True, modifier=modifier))


def bits(value: float) -> bytes:
    return struct.pack(">d", math.nan if math.isnan(value) else value)


@quick
@given(FLOATS)
def test_every_float_keeps_its_bits_and_its_text(server, values):
    said = texts(server, "float8", values)
    typed, side = split("float8", pa.float64(), pa.array(said))
    assert [bits(value) for value in typed.to_pylist()] == [bits(value) for value in values]
    rendered = text_of("float8", typed).cast(pa.string()).to_pylist()
    exact = side.to_pylist() if side is not None else [None] * len(said)
    assert [text if text is not None else own for text, own in zip(exact, rendered, strict=True)] == said


@pytest.mark.parametrize("exponent", range(-8, 20))
def test_floats_change_to_exponents_where_the_server_does(server, exponent):
    values = [float(f"{digits}e{exponent}") for digits in ("1", "9.5", "-1.25")]
    assert [server_text(value) for value in values] == texts(server, "float8", values)
    assert text_of("float8", pa.array(values)).to_pylist() == [
        text.encode() for text in texts(server, "float8", values)
    ]


@quick
@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=200))
def test_every_timestamp_comes_back_as_the_servers_text(server, micros):
    moments = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value) for value in micros]
    said = texts(server, "timestamptz", moments)
    typed, side = split("timestamptz", kind("timestamptz").stored, pa.array(said))
    assert side is None
    assert text_of("timestamptz", typed).cast(pa.string()).to_pylist() == said
    assert typed.cast(pa.int64()).to_pylist() == micros


@quick
@given(st.lists(st.decimals(-(10**20), 10**20, places=10), min_size=1, max_size=100))
def test_every_decimal_comes_back_with_all_its_zeros(server, values):
    numeric = kind("numeric", ((38 << 16) | 10) + 4)
    said = texts(server, "numeric(38,10)", values)
    typed, side = split(numeric.name, numeric.stored, pa.array(said))
    assert side is None
    assert text_of("decimal", typed).cast(pa.string()).to_pylist() == said


@quick
@given(st.lists(st.one_of(st.none(), st.binary(max_size=20)), min_size=1, max_size=50))
def test_bytes_come_back(server, values):
    said = texts(server, "bytea", values)
    typed, side = split("bytes", pa.binary(), pa.array(said, pa.string()))
    assert side is None
    assert typed.to_pylist() == values
    assert text_of("bytes", typed).cast(pa.string()).to_pylist() == said


@quick
@given(st.lists(st.one_of(st.none(), st.uuids()), min_size=1, max_size=50))
def test_uuids_come_back(server, values):
    said = texts(server, "uuid", values)
    typed, side = split("uuid", pa.uuid(), pa.array(said, pa.string()))
    assert side is None
    assert typed.to_pylist() == values
    assert text_of("uuid", typed).cast(pa.string()).to_pylist() == said


@pytest.mark.parametrize(
    ("name", "modifier", "stored"),
    [
        ("numeric", -1, pa.string()),
        ("numeric", ((15 << 16) | 2) + 4, pa.decimal128(15, 2)),
        ("numeric", ((39 << 16) | 0) + 4, pa.string()),
        ("numeric", ((3 << 16) | (-2 & 0x7FF)) + 4, pa.string()),
        ("int8", -1, pa.int64()),
        ("inet", -1, pa.string()),
    ],
)
def test_a_type_becomes_what_can_hold_it(name, modifier, stored):
    assert kind(name, modifier).stored == stored


def plain(strategy: st.SearchStrategy) -> st.SearchStrategy[str]:
    return strategy.map(str)


def text(**options) -> st.SearchStrategy[str]:
    """Any text that a server takes: no NUL, no surrogates."""
    return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), **options)


MOMENTS = st.datetimes().map(lambda moment: moment.isoformat(" "))
FAR = st.sampled_from(
    ["infinity", "-infinity", "4713-01-01 BC", "0044-03-15 BC", "12345-06-07", "9999-12-31"]
)
ELEMENTS = st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1))


def array(values: list[str]) -> str:
    return "{" + ",".join(values) + "}"


def quoted_element(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3),
)

STRATEGIES: dict[str, st.SearchStrategy[str]] = {
    "bool": st.sampled_from("tf"),
    "int2": plain(st.integers(-(2**15), 2**15 - 1)),
    "int4": plain(st.integers(-(2**31), 2**31 - 1)),
    "int8": plain(st.integers(-(2**63), 2**63 - 1)),
    "oid": plain(st.integers(0, 2**32 - 1)),
    "numeric(15,2)": st.one_of(st.just("NaN"), plain(st.decimals(-(10**12), 10**12, places=2))),
    "numeric": st.one_of(st.sampled_from(["NaN", "1e300", "-1e-200"]), plain(st.decimals(-(10**40), 10**40))),
    "float4": plain(st.floats(width=32)),
    "float8": plain(st.floats()),
    "text": text(max_size=30),
    "varchar(5)": text(max_size=5),
    "char(4)": text(max_size=4),
    "bytea": st.binary(max_size=20).map(lambda data: "\\x" + data.hex()),
    "date": st.one_of(FAR, plain(st.dates())),
    "time": st.one_of(st.just("24:00:00"), plain(st.times())),
    "timetz": st.builds("{}{:+d}".format, st.times(), st.integers(-15, 15)),
    "timestamp": st.one_of(FAR, MOMENTS),
    "timestamptz": st.one_of(FAR, MOMENTS.map("{}+00".format)),
    "interval": st.builds("{} mons {} days {} us".format, *[st.integers(-(10**6), 10**6)] * 3),
    "uuid": plain(st.uuids()),
    "jsonb": JSON.map(json.dumps),
    "int4[]": st.lists(ELEMENTS.map(lambda value: "NULL" if value is None else str(value)), max_size=4).map(
        array
    ),
    "text[]": st.lists(text(max_size=4).map(quoted_element), max_size=3).map(array),
    "int4range": st.builds("[{},{})".format, st.integers(-9, 0), st.integers(0, 9)),
    "inet": st.ip_addresses().map(str),
    "bit varying": st.text("01", max_size=9),
    "money": plain(st.decimals(-(10**9), 10**9, places=2)),
}


ROWS = st.tuples(*(st.one_of(st.none(), strategy) for strategy in STRATEGIES.values()))


@pytest.fixture(scope="module")
def scratch(server):
    columns = ", ".join(f"c{number} {sql_type}" for number, sql_type in enumerate(STRATEGIES))
    server.execute(f"CREATE TEMPORARY TABLE scratch ({columns})".encode())
    oid = server.execute("SELECT 'pg_temp.scratch'::regclass::oid::int8").fetchone()[0]
    return Layout.of(read_columns(server, [oid])[oid])


@settings(quick, max_examples=25)
@given(st.lists(ROWS, min_size=1, max_size=20))
def test_every_row_comes_out_of_parquet_as_the_servers_line(server, scratch, rows):
    """All types beside each other, NULLs among them, by way of a Parquet file."""
    values = ", ".join(f"%s::text::{sql_type}" for sql_type in STRATEGIES)
    with server.transaction(force_rollback=True):
        with server.cursor() as cursor:
            cursor.executemany(f"INSERT INTO pg_temp.scratch VALUES ({values})", rows)
        expressions = ", ".join(column.kind.expression(f'"{column.name}"') for column in scratch.columns)
        statement = f"COPY (SELECT {expressions} FROM pg_temp.scratch) TO STDOUT (FORMAT csv)"
        with server.cursor() as cursor, cursor.copy(statement) as copy:
            block = b"".join(bytes(piece) for piece in copy)
    typed = parse_block(block, scratch)
    sides = frozenset(typed.sides)
    file = io.BytesIO()
    pq.write_table(pa.Table.from_batches([scratch.batch(typed, sides)]), file)
    batches = pq.read_table(file).to_batches()
    assert b"".join(joined(lines_of(batch)) for batch in batches) == block

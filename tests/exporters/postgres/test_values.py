"""Values against the server itself, not against what we believe of it."""

import math
import struct
from datetime import UTC, datetime, timedelta

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.postgres.rows.column_types import SqlType, kind_of
from exporters.postgres.rows.text_codec.codecs import codec_of
from exporters.postgres.sessions.connection import connect, parse_url
from exporters.sql.value_codec import parse_exactly, rendered
from tests.exporters.postgres.values import STRATEGIES, assert_comes_back, scratch_table

FLOATS = st.lists(st.floats(width=64, allow_subnormal=True), min_size=1, max_size=200)
quick = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


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
    server_texts = texts(server, "float8", values)
    typed, side = parse_exactly(codec_of("float8"), pa.array(server_texts), pa.float64())
    assert [bits(value) for value in typed.to_pylist()] == [bits(value) for value in values]
    again = rendered(codec_of("float8"), typed).cast(pa.string()).to_pylist()
    exact = side.to_pylist() if side is not None else [None] * len(server_texts)
    assert [text if text is not None else own for text, own in zip(exact, again, strict=True)] == server_texts


@pytest.mark.parametrize("exponent", range(-8, 20))
def test_floats_change_to_exponents_where_the_server_does(server, exponent):
    values = [float(f"{digits}e{exponent}") for digits in ("1", "9.5", "-1.25")]
    assert rendered(codec_of("float8"), pa.array(values)).to_pylist() == [
        text.encode() for text in texts(server, "float8", values)
    ]


@quick
@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=200))
def test_every_timestamp_comes_back_as_the_servers_text(server, micros):
    moments = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value) for value in micros]
    server_texts = texts(server, "timestamptz", moments)
    typed, side = parse_exactly(codec_of("timestamptz"), pa.array(server_texts), kind("timestamptz").stored)
    assert side is None
    assert rendered(codec_of("timestamptz"), typed).cast(pa.string()).to_pylist() == server_texts
    assert typed.cast(pa.int64()).to_pylist() == micros


@quick
@given(st.lists(st.decimals(-(10**20), 10**20, places=10), min_size=1, max_size=100))
def test_every_decimal_comes_back_with_all_its_zeros(server, values):
    numeric = kind("numeric", ((38 << 16) | 10) + 4)
    server_texts = texts(server, "numeric(38,10)", values)
    typed, side = parse_exactly(numeric.codec, pa.array(server_texts), numeric.stored)
    assert side is None
    assert rendered(codec_of("decimal"), typed).cast(pa.string()).to_pylist() == server_texts


@quick
@given(st.lists(st.one_of(st.none(), st.binary(max_size=20)), min_size=1, max_size=50))
def test_bytes_come_back(server, values):
    server_texts = texts(server, "bytea", values)
    typed, side = parse_exactly(codec_of("bytes"), pa.array(server_texts, pa.string()), pa.binary())
    assert side is None
    assert typed.to_pylist() == values
    assert rendered(codec_of("bytes"), typed).cast(pa.string()).to_pylist() == server_texts


@quick
@given(st.lists(st.one_of(st.none(), st.uuids()), min_size=1, max_size=50))
def test_uuids_come_back(server, values):
    server_texts = texts(server, "uuid", values)
    typed, side = parse_exactly(codec_of("uuid"), pa.array(server_texts, pa.string()), pa.uuid())
    assert side is None
    assert typed.to_pylist() == values
    assert rendered(codec_of("uuid"), typed).cast(pa.string()).to_pylist() == server_texts


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


ROWS = st.tuples(*(st.one_of(st.none(), strategy) for strategy in STRATEGIES.values()))


@pytest.fixture(scope="module")
def scratch(server):
    return scratch_table(server, "scratch", list(STRATEGIES))


@settings(quick, max_examples=10)
@given(st.lists(ROWS, min_size=1, max_size=20))
def test_every_row_comes_out_of_parquet_as_the_servers_line(server, scratch, rows):
    """All types beside each other, NULLs among them, by way of a Parquet file."""
    assert_comes_back(server, "scratch", scratch, list(STRATEGIES), rows)

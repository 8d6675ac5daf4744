"""The compiled core makes the same rows for COPY as Arrow does, and refuses what it is given wrongly."""

import os
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporters import _rows
from exporters.postgres.rows.text_codec.composed_values import range_type
from exporters.postgres.rows.text_codec.times import INTERVAL
from exporters.sql.columns import KIND, TYPE
from migrate.restore.postgres.rows.copy_binary import encoder_of
from tests.tools.tally import count

FUZZED = 25
"""Examples of each property in a usual run."""
TABLES = int(os.environ.get("MOVEOUT_TABLES", "10000"))
"""Tables of the long test."""

needs_core = pytest.mark.skipif(
    _rows.core is None, reason="NOT TESTED: the compiled core is not built here (no compiler, or turned off)"
)

_WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
_MOMENTS = st.integers(-62135596800000000, 253402300799999999)
_INTERVALS = st.fixed_dictionaries(
    {field.name: st.integers(-(2**31), 2**31 - 1) for field in INTERVAL}  # of 64 bits, too
)
_FINITE = st.floats(allow_nan=False, allow_infinity=False)
_LEXEMES = st.tuples(st.text("ab '", min_size=1), st.sampled_from(["", ":1", ":2A,16383"])).map(
    lambda word: "'" + word[0].replace("'", "''") + "'" + word[1]
)
_RANGES = st.fixed_dictionaries(
    {
        "lower": st.none() | st.integers(-9, 0),
        "upper": st.none() | st.integers(1, 9),
        **dict.fromkeys(("lower_inc", "upper_inc", "empty"), st.booleans()),
    }
)


def integers(data_type: pa.DataType) -> st.SearchStrategy[int]:
    bits = data_type.bit_width - pa.types.is_signed_integer(data_type)
    least = -(2**bits) if pa.types.is_signed_integer(data_type) else 0
    return st.one_of(st.integers(least, 2**bits - 1), st.sampled_from([least, 0, 2**bits - 1]))


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    digits = st.integers(0, precision).flatmap(lambda count: st.integers(-(10**count) + 1, 10**count - 1))
    return digits.map(lambda number: Decimal(number).scaleb(-scale))


COLUMNS = {
    "boolean": ("bool", pa.bool_(), st.booleans()),
    "smallint": ("int", pa.int16(), integers(pa.int16())),
    "integer": ("int", pa.int32(), integers(pa.int32())),
    "bigint": ("int", pa.int64(), integers(pa.int64())),
    "oid": ("int", pa.uint32(), integers(pa.uint32())),
    **{
        f"numeric({precision},{scale})": (
            "decimal",
            pa.decimal128(precision, scale),
            decimals(precision, scale),
        )
        for precision, scale in [
            (15, 2),
            (4, 4),
            (15, 15),
            (15, 0),
            (12, 3),
            (1, 0),
            (9, 5),
            (20, 6),
            (38, 10),
        ]
    },
    "double precision": ("float8", pa.float64(), st.floats()),
    "real": ("single", pa.float32(), st.floats(width=32)),
    "date": ("date", pa.date32(), st.dates()),
    "time without time zone": ("time", pa.time64("us"), st.times()),
    "timestamp without time zone": ("timestamp", pa.timestamp("us"), _MOMENTS),
    "timestamp(3) with time zone": ("timestamptz", pa.timestamp("us", "UTC"), _MOMENTS),
    "interval": ("interval", INTERVAL, _INTERVALS),
    "text": ("text", pa.string(), _WORDS),
    "character varying(20)": ("text", pa.string_view(), _WORDS),
    "character(20)": ("text", pa.dictionary(pa.int32(), pa.string()), _WORDS),
    "bytea": ("bytes", pa.binary(), st.binary(max_size=20)),
    "json": ("json", pa.json_(pa.string()), _WORDS),
    "jsonb": ("json", pa.json_(pa.string()), _WORDS),
    "uuid": ("uuid", pa.uuid(), st.uuids().map(lambda value: value.bytes)),
    "numeric": ("text", pa.string(), decimals(38, 19).map("{:f}".format) | st.just("NaN")),
    "bit varying": ("text", pa.string(), st.text("01", max_size=20)),
    "inet": ("text", pa.string(), st.ip_addresses(v=4).map(str) | st.ip_addresses().map(str)),
    "point": ("text", pa.string(), st.tuples(_FINITE, _FINITE).map("({0[0]!r},{0[1]!r})".format)),
    "tsvector": ("text", pa.string(), st.lists(_LEXEMES, max_size=3).map(" ".join)),
    "int4range": ("range(int)", range_type(pa.int32()), _RANGES),
    "text[]": ("list(text)", pa.list_(pa.string()), st.lists(st.none() | _WORDS, max_size=3)),
}
"""By declared type: the kind, the stored type and values of it."""


def array_of(data_type: pa.DataType, values: list) -> pa.Array:
    if isinstance(data_type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(data_type, array_of(data_type.storage_type, values))
    if pa.types.is_dictionary(data_type):
        return pa.array(values, data_type.value_type).dictionary_encode()
    return pa.array(values, data_type)


def over_values(array: pa.Array, are_valid: list[bool]) -> pa.Array:
    """Make some values NULL without a change of what their places hold."""
    if isinstance(array.type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(array.type, over_values(array.storage, are_valid))
    if pa.types.is_nested(array.type) or pa.types.is_dictionary(array.type) or array.null_count:
        return array
    validity = pa.array([*are_valid, True]).buffers()[1]
    return pa.Array.from_buffers(array.type, len(array), [validity, *array.buffers()[1:]])


@st.composite
def batches(draw):
    """A batch of rows, cut out of a larger one."""
    declared = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=6, unique=True))
    rows, before, behind = draw(st.integers(0, 10)), draw(st.integers(0, 9)), draw(st.integers(0, 1))
    count = rows + before + behind
    arrays = []
    for name in declared:
        _, data_type, values = COLUMNS[name]
        values = st.none() | values if draw(st.booleans()) else values
        array = array_of(data_type, draw(st.lists(values, min_size=count, max_size=count)))
        if draw(st.booleans()):
            array = over_values(array, draw(st.lists(st.booleans(), min_size=count, max_size=count)))
        arrays.append(array)
    fields = [
        pa.field(name, array.type, metadata={KIND: COLUMNS[name][0], TYPE: name})
        for name, array in zip(declared, arrays, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)).slice(before, rows)


def check_bytes(batch: pa.RecordBatch) -> None:
    encoder = encoder_of(batch.schema, {name: name for name in batch.schema.names})
    assert encoder is not None
    by_arrow = encoder.rows_by_arrow([kind.encode(batch.column(name)) for name, kind in encoder.columns])
    assert encoder.rows_by_core(batch).tobytes() == by_arrow
    count("generated tables")


@needs_core
@settings(max_examples=FUZZED, deadline=None)
@given(batches())
def test_rows_are_the_same_as_without_the_core(batch):
    check_bytes(batch)


_BUFFER = st.one_of(
    st.binary(max_size=70),
    st.lists(st.integers(-3, 30), max_size=12).map(
        lambda numbers: b"".join(number.to_bytes(4, "little", signed=True) for number in numbers)
    ),
)
_NUMBER = st.one_of(st.integers(-3, 40), st.integers(-(2**63), 2**63 - 1))
_COLUMN = st.tuples(
    st.one_of(st.sampled_from(list(b"bhildUtj")), st.integers(0, 255)),
    _NUMBER,
    _NUMBER,
    st.none() | _BUFFER,
    st.none() | _BUFFER,
    _BUFFER,
)


def check_nonsense(columns: list, rows: int) -> None:
    assert _rows.core is not None
    try:
        made = memoryview(_rows.core.binary_rows(tuple(columns), rows))
    except ValueError:
        return
    assert made.tobytes().count(len(columns).to_bytes(2)) >= rows


@needs_core
@settings(max_examples=FUZZED * 5, deadline=None)
@given(st.lists(_COLUMN, max_size=4), _NUMBER)
@example([(ord("t"), 0, 0, None, (5).to_bytes(4, "little") * 2, b"abcd")], 1)
@example([(ord("d"), 2, 0, None, None, bytes([255]) * 16)], 1)
@example([(0, 0, 0, None, bytes(8), b"")], 1)
def test_buffers_without_the_rows_are_refused(columns, rows):
    check_nonsense(columns, rows)


@needs_core
@pytest.mark.parametrize(
    "column",
    [
        (ord("l"), 0, 0, None, None, bytes(15)),
        (ord("l"), 0, 1, None, None, bytes(16)),
        (ord("l"), 0, -1, None, None, bytes(32)),
        (ord("b"), 0, 7, None, None, bytes(1)),
        (ord("i"), 0, 0, b"", None, bytes(8)),
        (ord("d"), -1, 0, None, None, bytes(32)),
        (ord("t"), 0, 0, None, None, b""),
        (ord("t"), 0, 0, None, bytes(8), b""),
        (ord("t"), 0, 0, None, b"\0\0\0\0\2\0\0\0\1\0\0\0", b"ab"),
        (ord("t"), 0, 0, None, b"\0\0\0\0\1\0\0\0\3\0\0\0", b"ab"),
        (ord("t"), 0, 0, None, b"\xff\xff\xff\xff\1\0\0\0\2\0\0\0", b"ab"),
        (ord("r"), 0, 0, None, bytes(12), b""),
        (ord("x"), 0, 0, None, bytes(12), b""),
    ],
)
def test_a_column_that_lacks_rows_is_refused(column):
    assert _rows.core is not None
    with pytest.raises(ValueError, match="a column has not so many rows"):
        _rows.core.binary_rows((column,), 2)
    for rows in (-1, 2**40):
        with pytest.raises(ValueError, match="a column has not so many rows"):
            _rows.core.binary_rows((column,), rows)


@needs_core
def test_other_arguments_are_refused():
    assert _rows.core is not None
    with pytest.raises(TypeError):
        _rows.core.binary_rows([], 0)
    with pytest.raises(TypeError):
        _rows.core.binary_rows(((ord("l"), 0, 0, None, None, None),), 0)
    with pytest.raises(ValueError, match="a column has not so many rows"):
        _rows.core.binary_rows((), 1)


@needs_core
@pytest.mark.torture
@settings(max_examples=TABLES, deadline=None)
@given(batches(), st.lists(_COLUMN, max_size=4), _NUMBER)
def test_the_same_for_a_long_time(batch, columns, rows):
    check_bytes(batch)
    check_nonsense(columns, rows)

"""The compiled core and the pure path make the same of MySQL's packets: values, side columns, digest, errors."""

import os

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exporters import _rows
from exporters.errors import SourceError
from exporters.mysql.catalog import MysqlColumn
from exporters.mysql.rows.arrow_to_rows import encoded_length, texts_of
from exporters.mysql.rows.chunk_export import BlockParser, digest_block
from exporters.mysql.rows.column_types import TOO_LONG, SqlType, kind_of
from exporters.mysql.rows.protocol_rows import PacketBlock, payloads_of
from exporters.sql.columns import Layout
from tests.exporters.decimal_texts import decimals
from tests.tools.tally import count

FUZZED = 25
"""Examples of each property in a usual run."""
TABLES = int(os.environ.get("MOVEOUT_TABLES", "30000"))
"""Tables of the long test."""

needs_core = pytest.mark.skipif(
    _rows.core is None, reason="NOT TESTED: the compiled core is not built here (no compiler, or turned off)"
)


def sql_type(name: str, full: str = "", *, precision: int = 0, scale: int = 0, fraction: int = 0) -> SqlType:
    charset = "latin2" if "latin2" in full else "utf8mb4"
    return SqlType(name, full or name, precision, scale, fraction, charset, collation="utf8mb4_bin")


def whole(bits: int, *, signed: bool = True) -> st.SearchStrategy[str]:
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.integers(least, most), st.sampled_from([least, most, 0])).map(str)


def clocks(digits: int) -> st.SearchStrategy[str]:
    return st.times().map(
        lambda time: f"{time:%H:%M:%S}" + (f".{time.microsecond:06d}"[: digits + 1] if digits else "")
    )


CHARACTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=24)
LONG = st.sampled_from(["v" * 250, "v" * 251, "é" * 4000, "v" * 65_536])
DAY = st.dates().map(str)
ODD_DAYS = ["0000-00-00", "2001-02-00", "0000-01-01"]
TYPES: dict[str, tuple[SqlType, st.SearchStrategy[str]]] = {
    "decimal(65,30)": (sql_type("decimal", precision=65, scale=30), decimals(65, 30)),
    "bit": (sql_type("bit"), whole(64, signed=False)),
    "year": (sql_type("year", "year(4)"), st.integers(1901, 2155).map(str) | st.just("0000")),
    "date": (sql_type("date"), DAY | st.sampled_from(ODD_DAYS)),
    "float": (sql_type("float"), st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr)),
    "double": (
        sql_type("double"),
        st.one_of(
            decimals(15, 3).map(lambda text: text.rstrip("0").rstrip(".")),
            st.floats(allow_nan=False, allow_infinity=False).map(repr),
        ),
    ),
    "text": (sql_type("text"), CHARACTERS | LONG),
    "json": (sql_type("json"), CHARACTERS),
    "uuid": (sql_type("uuid"), st.uuids().map(str)),
    "latin2": (sql_type("varchar", "varchar(9) latin2"), CHARACTERS | st.just("\\x61")),
} | {
    f"{name}{unsigned}": (
        sql_type(name, f"{name}(9){unsigned}"),
        whole(bits, signed=not unsigned),
    )
    for name, bits in (("tinyint", 8), ("smallint", 16), ("mediumint", 24), ("int", 32), ("bigint", 64))
    for unsigned in ("", " unsigned")
}
TYPES |= {
    f"decimal({precision},{scale})": (
        sql_type("decimal", precision=precision, scale=scale),
        decimals(precision, scale),
    )
    for precision, scale in ((15, 2), (4, 4), (1, 0), (38, 38), (38, 0))
}
for fraction in (0, 3, 6):
    zeros = "." + "0" * fraction if fraction else ""
    odd_moments = [f"{day} 00:00:00{zeros}" for day in ODD_DAYS]
    moments = st.tuples(DAY, clocks(fraction)).map(" ".join) | st.sampled_from(odd_moments)
    TYPES[f"datetime({fraction})"] = (sql_type("datetime", fraction=fraction), moments)
    TYPES[f"timestamp({fraction})"] = (sql_type("timestamp", fraction=fraction), moments)
    odd_clocks = [f"{time}{zeros}" for time in ("-01:02:03", "838:59:59", "24:00:00")]
    TYPES[f"time({fraction})"] = (
        sql_type("time", fraction=fraction),
        clocks(fraction) | st.sampled_from(odd_clocks),
    )
BYTES = "blob"
ODD = st.sampled_from(
    [
        "",
        "007",
        "-0",
        "+1",
        "1e5",
        "-0.00",
        ".5",
        "1.",
        "1970-02-30",
        "23:59:60",
        "12:00:00.5",
        "99999999999999999999",
    ]
)
"""Texts that are values of few types, or none."""


def layout_of(types: list[SqlType]) -> Layout:
    return Layout.of(
        [
            MysqlColumn(f"c{number}", "", kind_of(of), False, False, "", "", False)
            for number, of in enumerate(types)
        ]
    )


def packet(payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + b"\x07" + payload


def payload_of(row: tuple[bytes | None, ...]) -> bytes:
    return b"".join(b"\xfb" if value is None else encoded_length(len(value)) + value for value in row)


@st.composite
def tables(draw: st.DrawFn, odd: float = 0.0) -> tuple[Layout, bytes]:
    """A layout and a block of its packets; with ``odd`` of the columns having odd texts, too."""
    names = draw(st.lists(st.sampled_from([*sorted(TYPES), BYTES]), min_size=1, max_size=6))
    columns = []
    for name in names:
        strategy = st.binary(max_size=9) if name == BYTES else TYPES[name][1].map(str.encode)
        if odd and draw(st.floats(0, 1)) < odd:
            strategy = st.one_of(strategy, ODD.map(str.encode), st.binary(max_size=4))
        columns.append(st.one_of(st.none(), strategy) if draw(st.booleans()) else strategy)
    rows = draw(st.lists(st.tuples(*columns), min_size=1, max_size=12)) * draw(st.sampled_from([1, 1, 9]))
    layout = layout_of([sql_type(BYTES) if name == BYTES else TYPES[name][0] for name in names])
    return layout, b"".join(packet(payload_of(row)) for row in rows)


def parsed(layout: Layout, block: PacketBlock | list[bytes]) -> object:
    """All that becomes of a block, in a form that can be compared; the error where there is one."""
    try:
        result = BlockParser(layout, "t").parse(block)
        batch = layout.batch(result.typed)
        batch.validate(full=True)  # text that has to be ASCII is not looked at
    except (SourceError, pa.ArrowInvalid) as error:
        return type(error)
    return batch, result.digest, result.text_bytes


def check(layout: Layout, packets: bytes, *, is_printed: bool) -> None:
    """The core makes of a block what the pure path makes of its payloads. What a server has printed renders to the very
    payloads again; other texts do where they are typed by comparison.
    """
    payloads = payloads_of(PacketBlock(packets))
    by_core = parsed(layout, PacketBlock(packets))
    assert by_core == parsed(layout, payloads)
    assert digest_block(PacketBlock(packets)) == digest_block(payloads)
    if isinstance(by_core, tuple):
        typed = BlockParser(layout, "t").parse(PacketBlock(packets)).typed
        exact = BlockParser(layout, "t").parse_exactly(PacketBlock(packets))
        batches = [layout.batch(table) for table in (typed, exact)]
        assert texts_of(batches[1]) == payloads
        assert not is_printed or texts_of(batches[0]) == payloads
        assert batches[0].schema != batches[1].schema or batches[0] == batches[1]
    count("generated tables")


@needs_core
@settings(max_examples=FUZZED, deadline=None)
@given(tables())
def test_the_server_s_text_is_typed_as_without_the_core(table):
    check(*table, is_printed=True)


@needs_core
@settings(max_examples=FUZZED, deadline=None)
@given(tables(odd=0.6))
def test_texts_that_no_server_prints_are_typed_as_without_the_core(table):
    check(*table, is_printed=False)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Layout, bytes]:
    """A block of packets in whose payloads bytes were changed, left out or put in."""
    layout, block = draw(tables())
    payloads = [bytearray(payload) for payload in payloads_of(PacketBlock(block))]
    for _ in range(draw(st.integers(1, 3))):
        payload = draw(st.sampled_from(payloads))
        at = draw(st.integers(0, len(payload)))
        payload[at : at + draw(st.integers(0, 3))] = draw(
            st.sampled_from([b"\xfb", b"\xfc", b"\xfd\xff", b"\xfe", b"\0", b"\xff"]) | st.binary(max_size=2)
        )
    return layout, b"".join(map(packet, payloads))


def check_damage(layout: Layout, packets: bytes) -> None:
    """A block that the core takes has these columns by their lengths; any other one is for the pure path."""
    assert _rows.core is not None
    parser = BlockParser(layout, "t")
    taken = _rows.core.parse(packets, parser.core_kinds, True)
    payloads = payloads_of(PacketBlock(packets))
    assert (taken is not None) == all(has_columns(payload, len(layout.columns)) for payload in payloads)
    if taken is not None:
        assert parsed(layout, PacketBlock(packets)) == parsed(layout, payloads)
        count("generated tables")


def has_columns(payload: bytes, count: int) -> bool:
    """Whether a payload is so many length-encoded strings."""
    position = 0
    for _ in range(count):
        first = payload[position : position + 1]
        if not first or first == b"\xff":
            return False
        width = {b"\xfc": 2, b"\xfd": 3, b"\xfe": 8}.get(first, 0)
        length = payload[position + 1 : position + 1 + width]
        position += 1 + width
        size = int.from_bytes(length, "little") if width else 0 if first == b"\xfb" else first[0]
        if len(length) < width or size > len(payload) - position:
            return False
        position += size
    return position == len(payload)


@needs_core
@settings(max_examples=FUZZED, deadline=None)
@given(damaged())
@example((layout_of([sql_type("text")]), packet(b"\xfe" + b"\xff" * 8)))
@example((layout_of([sql_type("text")]), packet(b"")))
def test_rows_that_are_none_of_the_table_are_left_to_the_pure_path(table):
    check_damage(*table)


@needs_core
@pytest.mark.torture
@settings(max_examples=TABLES // 3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables(), tables(odd=0.6), damaged())
def test_the_same_for_a_long_time(server_table, odd_table, damaged_table):
    check(*server_table, is_printed=True)
    check(*odd_table, is_printed=False)
    check_damage(*damaged_table)


@needs_core
@given(
    st.lists(st.binary(min_size=1, max_size=12), max_size=8),
    st.sampled_from([b"", packet(b"\xfe\0\0\2\0"), packet(b"\xff\1\2ABC"), packet(b"x" * 41), b"\5\0\0"]),
    st.integers(0, 3),
)
@settings(max_examples=FUZZED, deadline=None)
def test_whole_rows_are_taken_up_to_the_end(payloads, last, missing):
    """The end, a long row, or a row of which a part has not arrived, stays."""
    rows = [packet(payload) for payload in payloads if payload[0] < 0xFE]
    received = b"".join([*rows, last])
    received = received[: len(received) - missing]
    whole_bytes = 0
    for row in rows:
        if whole_bytes + len(row) > len(received):
            break
        whole_bytes += len(row)
    assert _rows.core is not None
    assert _rows.core.whole_packets(received, 40) == whole_bytes


@pytest.mark.parametrize("path", ["compiled", "pure Python"])
def test_a_value_that_did_not_come_is_told(path, monkeypatch):
    if path == "pure Python":
        monkeypatch.setattr(_rows, "core", None)
    layout = layout_of([sql_type("varchar", "varchar(9) latin2")])
    block = PacketBlock(packet(payload_of((TOO_LONG.encode(),))))
    with pytest.raises(SourceError, match="max_allowed_packet"):
        BlockParser(layout, "t").parse(block)


@needs_core
def test_what_the_core_is_given_wrongly_is_refused():
    assert _rows.core is not None
    for kinds in (b"t", b"T\0\7", b"S\0\7", b"?\0\0"):
        with pytest.raises(ValueError, match="three bytes for each column"):
            _rows.core.parse(b"", kinds, True)
    assert _rows.core.parse(b"", b"t\0\0", True) is None
    assert _rows.core.parse(packet(b"\0")[:-1], b"t\0\0", True) is None
    assert _rows.core.whole_packets(packet(b"\1a"), -1) == 0

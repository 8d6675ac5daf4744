"""The compiled core and the pure path make the same of every block: values, side columns, digest, errors."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_intdigest

from exporters import _rows
from exporters.errors import SourceError
from exporters.postgres.catalog import PostgresColumn
from exporters.postgres.rows import asyncpg_feed, csv_rows
from exporters.postgres.rows.column_types import SqlType, kind_of
from exporters.postgres.rows.csv_rows import (
    BlockParser,
    block_of,
    digest_block,
    lines_of,
    parse_block,
    parse_block_exactly,
    split_lines,
)
from exporters.row_digest import MODULUS, digest_texts
from exporters.sql.columns import Layout
from tests.exporters.decimal_texts import decimals
from tests.exporters.postgres.databases import export_database, run_sql
from tests.tools.bundles import read_bundle
from tests.tools.tally import count

ROOT = Path(__file__).parents[3]
MOVEOUT = Path(sys.executable).with_name("moveout")
FUZZED = 25
"""Examples of each property in a usual run."""
TABLES = int(os.environ.get("MOVEOUT_TABLES", "30000"))
"""Tables of the long test."""

needs_core = pytest.mark.skipif(
    _rows.core is None, reason="NOT TESTED: the compiled core is not built here (no compiler, or turned off)"
)


def numeric(precision: int, scale: int) -> SqlType:
    return SqlType("numeric", built_in=True, modifier=((precision << 16) | scale) + 4)


def whole(bits: int, *, signed: bool = True) -> st.SearchStrategy[str]:
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.integers(least, most), st.sampled_from([least, most, 0]), st.integers(-11, 11)).map(
        str
    )


CHARACTERS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=24)
CLOCK = st.builds(
    "{:02d}:{:02d}:{:02d}{}".format,
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(0, 59),
    st.integers(0, 999_999).map(lambda micros: f".{micros:06d}".rstrip("0").rstrip(".")),
)
DAY = st.dates().map(str)
SHORT_FLOATS = st.one_of(
    decimals(15, 3),
    st.integers(-(10**16), 10**16).flatmap(lambda n: st.integers(-8, 8).map(lambda e: repr(n * 10.0**e))),
).map(lambda text: text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text)
"""Some of up to 15 digits, some of a few more; -0 and 1e-05 among them."""
FAR = st.sampled_from(["infinity", "-infinity", "0044-03-15 BC", "12345-06-07"])
ENDS = st.sampled_from(["0001-01-01", "1600-02-29", "9999-12-31"])
TYPES: dict[str, tuple[SqlType, st.SearchStrategy[str]]] = {
    name: (SqlType(name, built_in=True, modifier=-1), strategy)
    for name, strategy in {
        "bool": st.sampled_from("tf"),
        "int2": whole(16),
        "int4": whole(32),
        "int8": whole(64),
        "oid": whole(32, signed=False),
        "float8": st.one_of(st.floats().map(repr), SHORT_FLOATS),
        "float4": st.floats(width=32).map(repr),
        "numeric": st.one_of(st.just("NaN"), decimals(50, 7)),
        "text": CHARACTERS,
        "json": CHARACTERS,
        "date": st.one_of(DAY, ENDS, FAR),
        "time": st.one_of(CLOCK, st.just("24:00:00")),
        "timestamp": st.one_of(st.builds("{} {}".format, st.one_of(DAY, ENDS), CLOCK), FAR),
        "timestamptz": st.one_of(st.builds("{} {}+00".format, st.one_of(DAY, ENDS), CLOCK), FAR),
        "uuid": st.uuids().map(str),
        "bytea": st.binary(max_size=20).map(lambda data: "\\x" + data.hex()),
        "interval": st.sampled_from(["P1Y", "P1DT2H", "PT0S", "P-1M"]),
    }.items()
} | {
    f"numeric({p},{s})": (numeric(p, s), st.one_of(st.just("NaN"), decimals(p, s)))
    for p, s in ((15, 2), (4, 4), (1, 0), (18, 0), (19, 3), (38, 0), (38, 38), (38, 10))
}


def array_text(items: list[str | None]) -> str:
    """An array as array_out writes it."""
    return "{" + ",".join("NULL" if item is None else array_item(item) for item in items) + "}"


def array_item(item: str) -> str:
    if item and item.upper() != "NULL" and not set(item) & set('{},"\\ \t\n\v\f\r'):
        return item
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


LISTED = ("bool", "int2", "int4", "int8", "oid", "float8", "date", "time", "timestamp", "timestamptz", "uuid")
NESTED = st.sampled_from(["{{1,2},{3,4}}", "[0:1]={1,2}", "{}"])
for name in (*LISTED, "text", "numeric(15,2)"):
    element, strategy = TYPES[name]
    arrays = st.lists(st.one_of(st.none(), strategy), max_size=4).map(array_text)
    array_type = SqlType(
        f"_{element.name}", built_in=True, modifier=element.modifier, shape="list", parts=(element,)
    )
    TYPES[f"{name}[]"] = array_type, st.one_of(arrays, NESTED) if name == "int4" else arrays

_WORDS = [
    "",
    "{",
    "{}",
    "{1,}",
    "{,}",
    '{""}',
    '{"',
    '{"}',
    '{"1"}',
    "{null}",
    "{NULL",
    '{"null",NULL}',
    "{a b}",
    '{"a"b}',
    '{"\\"",x\\"}',
    '{"\\\\"}',
    "{1}{2}",
    "007",
    "-0",
    "+1",
    "1e5",
    "0.00",
    "-0.00",
    ".5",
    "1.",
    "TRUE",
    "1970-02-30",
    "0000-01-01",
    "23:59:60",
    "12:00:00.50",
    "1999-01-01T00:00:00",
    "\\xABCD",
    "\\x1",
    "2147483648",
    "-32769",
    "9999999999999999999999999999999999999999",
    " 1",
    "\\.",
]
ODD = st.one_of(st.sampled_from(_WORDS), CHARACTERS)
"""Texts that are values of few types, or none."""


def layout_of(types: list[SqlType], *, encoding: str = "", utf8: bool = True) -> Layout:
    kinds = [kind_of(sql_type, utf8=utf8, encoding=encoding) for sql_type in types]
    return Layout.of(
        [
            PostgresColumn(f"c{i}", "", kind, not_null=False, generated=False, identity="", collation="")
            for i, kind in enumerate(kinds)
        ]
    )


def csv_field(value: str | None, *, alone: bool) -> str:
    """A value as CopyAttributeOutCSV writes it."""
    if value is None:
        return ""
    if not value or set(value) & set('",\n\r') or (alone and value == "\\."):
        return '"' + value.replace('"', '""') + '"'
    return value


@st.composite
def tables(draw: st.DrawFn, odd: float = 0.0) -> tuple[Layout, bytes]:
    """A layout and a block of its lines; with ``odd`` of the columns having odd texts, too."""
    names = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=6))
    columns = []
    for name in names:
        strategy = TYPES[name][1]
        if odd and draw(st.floats(0, 1)) < odd:
            strategy = st.one_of(strategy, ODD)
        columns.append(st.one_of(st.none(), strategy) if draw(st.booleans()) else strategy)
    rows = draw(st.lists(st.tuples(*columns), min_size=1, max_size=12)) * draw(st.sampled_from([1, 1, 9]))
    lines = [",".join(csv_field(value, alone=len(names) == 1) for value in row) + "\n" for row in rows]
    layout = layout_of([TYPES[name][0] for name in names], encoding=draw(st.sampled_from(["", "EUC_JP"])))
    return layout, "".join(lines).encode()


def as_values(parse) -> object:
    """All that a parser makes of a block, in a form that can be compared; the kind of error where it raises one."""
    try:
        layout, table, digest = parse()
    except pa.ArrowInvalid:
        return "invalid"
    batch = layout.batch(table)
    batch.validate(full=True)
    days = [
        c.view(pa.int32()) if pa.types.is_date32(c.type) else c for c in batch.columns
    ]  # Python has no year 0
    return batch.schema, repr([column.to_pylist() for column in days]), digest


def by_core(layout: Layout, block: bytes) -> tuple:
    parsed = BlockParser(layout).parse(block)
    return layout, parsed.typed, parsed.digest


def exactly(layout: Layout, block: bytes) -> tuple:
    table = parse_block_exactly(block, layout)
    return layout, table, digest_texts(split_lines(block, table.rows))


def purely(layout: Layout, block: bytes) -> tuple:
    table = parse_block(block, layout)
    return layout, table, digest_texts(split_lines(block, table.rows))


def takes(layout: Layout, block: bytes) -> bool:
    """Whether the core takes a block; the pure path does all others."""
    assert _rows.core is not None
    return _rows.core.parse(block, BlockParser(layout).core_kinds) is not None


def check_server_text(table: tuple[Layout, bytes]) -> None:
    """What the server prints is taken, and is what the pure path makes of it."""
    layout, block = table
    assert takes(layout, block)
    compiled = as_values(lambda: by_core(layout, block))
    assert compiled == as_values(lambda: purely(layout, block)) == as_values(lambda: exactly(layout, block))
    count("generated tables")


def check_any_text(table: tuple[Layout, bytes]) -> None:
    """Whatever stands in a block: the core makes the same of it as the slow way, or leaves it to the pure path. No
    value is typed that does not print as it stood there.
    """
    layout, block = table
    if not takes(layout, block):
        return
    compiled = as_values(lambda: by_core(layout, block))
    assert compiled == as_values(lambda: exactly(layout, block))
    if compiled != "invalid":
        typed = BlockParser(layout).parse(block).typed
        batch = layout.batch(typed)
        lines = split_lines(block)
        assert [csv_normal(line) for line in lines_of(batch)] == [csv_normal(line) for line in lines]
    count("generated tables")


def csv_normal(line: bytes) -> bytes:
    """A line without the quotes that the server would not have put there."""
    return line.replace(b'"', b"")


def test_the_first_rows_of_a_chunk_render_to_their_text_again(monkeypatch):
    """Or every value is compared with its text; where that does not help, the chunk fails."""
    monkeypatch.setattr(_rows, "core", None)
    layout, block = layout_of([TYPES["int4[]"][0]]), b"[0:0]={7}\n{8}\n"
    changed = BlockParser(layout).parse(block, compare=False).typed
    assert block_of(layout.batch(changed)) == b"\n{8}\n"
    proved = BlockParser(layout).parse_proved(block)
    assert block_of(layout.batch(proved.typed)) == block
    assert proved.digest == digest_block(block)
    monkeypatch.setattr(csv_rows, "parse_block_exactly", lambda *_: changed)
    with pytest.raises(SourceError, match="do not come out of Parquet as they went in"):
        BlockParser(layout).parse_proved(block)


PIECES = st.sampled_from([b'"', b",", b"\n", b"\r", b"\0", b"\xff", b'""'])


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Layout, bytes]:
    """A block in which bytes were changed, left out, put in or cut off."""
    layout, block = draw(tables(odd=0.3))
    damage = bytearray(block)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(damage)))
        piece = draw(
            st.one_of(
                st.sampled_from([b'"', b",", b"\n", b"\r", b"\0", b"\xff", b'""']), st.binary(max_size=2)
            )
        )
        damage[at : at + draw(st.integers(0, 3))] = piece
    return layout, bytes(damage[: draw(st.integers(0, len(damage)))] if draw(st.booleans()) else damage)


def check_damage(table: tuple[Layout, bytes]) -> None:
    """The same of a damaged block; the digest does not need lines that are whole in their fields."""
    check_any_text(table)
    _, block = table
    if block.endswith(b"\n") and not block.count(b'"') % 2:
        assert digest_block(block) == digest_texts(split_lines(block))


@needs_core
@settings(max_examples=FUZZED, deadline=None)
@given(tables())
def test_the_server_s_text_is_typed_as_without_the_core(table):
    check_server_text(table)


@needs_core
@settings(max_examples=FUZZED, deadline=None)
@given(tables(odd=0.6))
def test_texts_that_no_server_prints_are_typed_as_by_comparison(table):
    check_any_text(table)


@needs_core
@settings(max_examples=FUZZED, deadline=None)
@given(damaged())
@example((layout_of([SqlType("text", built_in=True, modifier=-1)]), b'a"b"\n'))
@example((layout_of([SqlType("text", built_in=True, modifier=-1)]), b'"a"b\n'))
@example((layout_of([SqlType("int4", built_in=True, modifier=-1)] * 2), b"1,2\n3\n4,5,6\n"))
def test_a_damaged_block_is_typed_the_same_or_left_alone(table):
    check_damage(table)


@needs_core
@pytest.mark.parametrize("size", [63, 64, 65, 127, 128, 129])
def test_quotes_at_the_end_of_what_is_looked_at_together(size):
    """64 bytes are looked at at once: quotes and newlines on both sides of the border."""
    layout = layout_of([SqlType("text", built_in=True, modifier=-1)] * 2)
    for value in ('"', '""', 'a"', '\n"', ',"\n', ""):
        for shift in range(4):
            first = "x" * (size - shift)
            block = f"{first},{csv_field(value, alone=False)}\n{csv_field(value, alone=False)},y\n".encode()
            check_server_text((layout, block))


MESSAGE = st.one_of(
    st.tuples(st.just(b"d"), st.binary(max_size=12)),
    st.tuples(st.sampled_from([b"d", b"C", b"N", b"Z", b"\0"]), st.binary(max_size=5)),
)


@st.composite
def received(draw: st.DrawFn) -> bytes:
    """Messages of a server, the last one perhaps not whole, now and then with a length that is none."""
    messages = [
        kind + (len(body) + 4).to_bytes(4, "big") + body for kind, body in draw(st.lists(MESSAGE, max_size=8))
    ]
    if draw(st.integers(0, 5)) == 0:
        length = draw(st.sampled_from([0, 3, 4, 2**31 - 1, 2**31, 2**32 - 1]))
        messages.append(b"d" + length.to_bytes(4, "big") + b"rest")
    everything = b"".join(messages)
    return everything[: draw(st.integers(0, len(everything)))] if draw(st.booleans()) else everything


def check_messages(monkeypatch, stream: bytes) -> None:
    """Messages are cut as without the core: the same bodies, the same rest, the same error."""

    def cut() -> object:
        with asyncio.Runner() as runner:
            arrived = asyncpg_feed._Received(runner.get_loop(), are_text=False)
            arrived.get_buffer(0)[: len(stream)] = stream
            arrived.buffer_updated(len(stream))
            try:
                taken = arrived.take()
            except ConnectionError as error:
                return str(error)
            return taken, arrived.buffer[: arrived.size]

    with monkeypatch.context() as patch:
        patch.setattr(asyncpg_feed, "LONG_BYTES", 10)
        compiled = cut()
        patch.setattr(_rows, "core", None)
        assert cut() == compiled


@needs_core
@settings(
    max_examples=FUZZED,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(received())
def test_messages_are_cut_as_without_the_core(monkeypatch, stream):
    check_messages(monkeypatch, stream)


WRITTEN = dict(zip("\b\f\n\r\t\v\\", ["\\b", "\\f", "\\n", "\\r", "\\t", "\\v", "\\\\"], strict=True))


def text_field(value: str | None) -> str:
    """A value as CopyAttributeOutText writes it."""
    return "\\N" if value is None else "".join(WRITTEN.get(character, character) for character in value)


def as_messages(lines: list[str]) -> bytes:
    bodies = [line.encode() + b"\n" for line in lines]
    return b"".join(b"d" + (len(body) + 4).to_bytes(4, "big") + body for body in bodies)


MARKS = st.text(st.sampled_from('",\\\n\r\t\b\f\vN.abc\u00e9'), max_size=40)
FIELDS = st.one_of(
    st.none(), MARKS, CHARACTERS, st.sampled_from(["", "\\.", "\\N", "x" * 15, "y" * 16, "z" * 33])
)


def check_text_format(rows: list[tuple[str | None, ...]]) -> None:
    """Rows in COPY's text format become the lines that the server writes as CSV."""
    assert _rows.core is not None
    text = as_messages(["\t".join(map(text_field, row)) for row in rows])
    lines = [",".join(csv_field(value, alone=len(row) == 1) for value in row) for row in rows]
    block = "".join(f"{line}\n" for line in lines).encode()
    assert _rows.core.whole_rows(text, len(text), True) == (block, len(text))
    assert _rows.core.whole_rows(as_messages(lines), len(block) + 1) == (block, len(as_messages(lines)))


@needs_core
@settings(max_examples=5 * FUZZED, deadline=None)
@given(st.integers(1, 6).flatmap(lambda width: st.lists(st.tuples(*[FIELDS] * width), max_size=6)))
@example([("",), (None,), ("\\.",), ("\\",), ("x\\.",)])
@example([("", "", ""), (None, None, None), ("", None, ""), ("\t" * 9, "", '"')])
@example([("", "fgh", "i"), ("x" * 40, 'a "quoted", long text with a line\n' * 3, "y" * 40, None)])
def test_text_rows_become_the_server_s_lines_of_csv(rows):
    check_text_format(rows)


@needs_core
@settings(max_examples=FUZZED, deadline=None)
@given(received(), st.binary(max_size=40))
def test_damaged_text_rows_end_where_their_messages_do(stream, body):
    assert _rows.core is not None
    stream = b"d" + (len(body) + 4).to_bytes(4, "big") + body + stream
    taken = _rows.core.whole_rows(stream, 100, True)[1]
    assert taken == _rows.core.whole_rows(stream, 100)[1] >= len(body)


@needs_core
def test_the_digest_is_that_of_xxhash():
    random_bytes = random.Random(1).randbytes(70_000)
    for size in [*range(1200), 2047, 2048, 2049, 4096, 65_537]:
        text = random_bytes[size : 2 * size]
        assert digest_by_core([text]) == xxh3_128_intdigest(text), size
    texts = [random_bytes[size:] for size in range(69_000, 70_000)]
    assert (
        digest_by_core(texts) == digest_texts(texts).digest == sum(map(xxh3_128_intdigest, texts)) % MODULUS
    )


def digest_by_core(texts: list[bytes]) -> int:
    """The digest of any bytes: MySQL's packets may hold them."""
    assert _rows.core is not None
    packets = b"".join(len(text).to_bytes(3, "little") + b"\0" + text for text in texts)
    rows, digest, _ = _rows.core.parse(packets, b"", True)
    assert rows == len(texts)
    return int.from_bytes(digest, "little")


@needs_core
def test_what_the_core_is_given_wrongly_is_refused():
    assert _rows.core is not None
    for kinds in (b"i", b"i\0", b"?\0\0", b"d\0\0", b"d\x27\0", b"d\x05\x06", b"\0\0\0"):
        with pytest.raises(ValueError, match="three bytes for each column"):
            _rows.core.parse(b"1\n", kinds)
    with pytest.raises(TypeError):
        _rows.core.parse("1\n", b"i\0\0")


@needs_core
@pytest.mark.torture
@settings(
    max_examples=TABLES // 3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tables(), tables(odd=0.6), damaged(), received(), st.lists(st.tuples(FIELDS, FIELDS), max_size=6))
def test_the_same_for_a_long_time(monkeypatch, server_table, odd_table, damaged_table, stream, rows):
    check_messages(monkeypatch, stream)
    check_text_format(rows)
    check_server_text(server_table)
    check_any_text(odd_table)
    check_damage(damaged_table)


ROWS = """
CREATE TABLE mixed AS SELECT n AS id, (n % 7 = 0) AS flag, (n % 100)::int2 AS small, n * 10000000000 AS large,
  CASE n % 50 WHEN 0 THEN 'NaN' ELSE n / 7.0 END::numeric(15,2) AS amount, n / 3.0::float8 AS ratio,
  CASE n % 40 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE repeat('"a, ' || chr(233) || E'\\n', n % 5) || n END AS words,
  CASE n % 60 WHEN 0 THEN 'infinity' ELSE date '1999-12-25' + n % 9000 END AS day,
  timestamptz '2001-02-03 04:05:06.789+00' + n * interval '1.5 s' AS moment, md5(n::text)::uuid AS key,
  CASE n % 9 WHEN 0 THEN '\\N' WHEN 1 THEN '\\.' WHEN 2 THEN '' WHEN 3 THEN NULL WHEN 4 THEN E'\\t'
    WHEN 5 THEN E'a\\r\\nb' WHEN 6 THEN E'\\\\' ELSE repeat(E'\\\\,"\\b\\v\\f', n % 8) || n END AS marks,
  decode(md5(n::text), 'hex') AS bytes, jsonb_build_object('n', n) AS document, ARRAY[n, NULL] AS list
FROM generate_series(1, 6000) AS n;
CREATE TABLE one_text AS SELECT CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN '\\.' ELSE n::text END AS value
FROM generate_series(1, 60000) AS n
"""


@pytest.fixture(params=[pytest.param("compiled", marks=pytest.mark.torture), "pure Python"])
def row_path(request, monkeypatch):
    """Rows are read by the compiled core, or without it."""
    if request.param == "pure Python":
        monkeypatch.setattr(_rows, "core", None)
    elif _rows.core is None:
        pytest.skip("NOT TESTED: the compiled core is not built here")
    return request.param


@pytest.fixture(scope="module")
def mixed_database(postgres) -> str:
    url = postgres.database()
    run_sql(url, ROWS)
    return url


def test_tables_leave_whole_on_both_paths(mixed_database, row_path, tmp_path):
    assert _rows.row_path() == row_path
    assert export_database(mixed_database, tmp_path / "bundle").complete
    bundle = read_bundle(tmp_path / "bundle")
    digests = {row.name: (row.items, row.digest) for row in bundle.catalog() if row.kind == "table"}
    assert digests == server_digests(mixed_database)
    environment = os.environ | ({} if row_path == "compiled" else {_rows.PURE_VARIABLE: "1"})
    verify = [MOVEOUT, "verify", tmp_path / "bundle", "--level", "full"]
    subprocess.run(verify, env=environment, check=True, capture_output=True)


def server_digests(url: str) -> dict[str, tuple[int, str]]:
    """Rows and digests of what the server prints, by nothing of ours."""
    import psycopg

    digests = {}
    with psycopg.connect(url, options="-c timezone=UTC -c extra_float_digits=1") as connection:
        for name in ("mixed", "one_text"):
            with connection.cursor().copy(f"COPY (SELECT * FROM {name}) TO STDOUT (FORMAT csv)") as copy:
                lines = [bytes(line)[:-1] for line in copy]
            digests[name] = (len(lines), f"{sum(map(xxh3_128_intdigest, lines)) % MODULUS:032x}")
    return digests


def test_the_version_says_which_code_reads_rows():
    paths = {"1": "pure Python"}
    if not os.environ.get(_rows.PURE_VARIABLE):  # else it is not known here what the other path would be
        paths[""] = _rows.row_path()
    for value, path in paths.items():
        environment = os.environ | {_rows.PURE_VARIABLE: value}
        shown = subprocess.run(
            [MOVEOUT, "--version"], env=environment, capture_output=True, text=True, check=True
        )
        assert shown.stdout.splitlines()[1] == f"rows are read by {path} code"

"""Values of every type, as the server reads them, and the way through Parquet and back."""

import io
import json

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from exporters.postgres.catalog import read_columns
from exporters.postgres.rows.csv_rows import block_of, parse_block
from exporters.sql.columns import Layout


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


def quoted_lexeme(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


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
    "numeric": st.one_of(
        st.sampled_from(["NaN", "Infinity", "-Infinity", "1e300", "-1e-200"]),
        plain(st.decimals(-(10**40), 10**40)),
    ),
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
    "json": st.tuples(JSON, st.sampled_from([None, 1, 3])).map(lambda one: json.dumps(one[0], indent=one[1])),
    "jsonb": JSON.map(json.dumps),
    "tsvector": st.lists(st.tuples(text(min_size=1, max_size=4), st.integers(1, 99)), max_size=3).map(
        lambda lexemes: " ".join(f"{quoted_lexeme(word)}:{location}" for word, location in lexemes)
    ),
    "bit(5)": st.text("01", min_size=5, max_size=5),
    "cidr": st.ip_addresses().map(str),
    "macaddr": st.binary(min_size=6, max_size=6).map(bytes.hex),
    "pg_lsn": st.builds("{:X}/{:X}".format, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    "point": st.builds("({!r},{!r})".format, st.floats(), st.floats()),
    "name": text(max_size=15),
    '"char"': st.sampled_from(["", "a", ",", '"', "\\"]),
    "int4[]": st.lists(ELEMENTS.map(lambda value: "NULL" if value is None else str(value)), max_size=4).map(
        array
    ),
    "text[]": st.lists(text(max_size=4).map(quoted_element), max_size=3).map(array),
    "int4range": st.builds("[{},{})".format, st.integers(-9, 0), st.integers(0, 9)),
    "inet": st.ip_addresses().map(str),
    "bit varying": st.text("01", max_size=9),
    "money": plain(st.decimals(-(10**9), 10**9, places=2)),
}


OFFSETS = st.builds(
    "{:+03d}:{:02d}:{:02d}".format, st.integers(-15, 15), st.integers(0, 59), st.sampled_from([0, 0, 7])
)
"""Hours, minutes and now and then seconds."""


def word(value: str, quote: str = '""') -> str:
    """A word in quotes, as ranges and composites have them, and maps with another ``quote``."""
    escaped = value.replace("\\", "\\\\").replace('"', quote)
    return f'"{escaped}"'


def arrays_of(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Arrays: most have one dimension that begins with 1."""
    element = st.one_of(st.just("NULL"), strategy.map(quoted_element))
    two = st.lists(element, min_size=2, max_size=2).map(array)
    flat = st.lists(element, max_size=4).map(array)
    return st.one_of(flat, flat, two.map("[5:6]={}".format), st.lists(two, min_size=2, max_size=2).map(array))


def ranges_over(bounds: st.SearchStrategy, key=None) -> st.SearchStrategy[str]:
    """Ranges, open, closed, without end, empty."""

    def made(ends: tuple, without: tuple[bool, bool], brackets: str) -> str:
        lower, upper = sorted(ends, key=key)
        texts = ["" if gone else word(str(end)) for gone, end in zip(without, (lower, upper), strict=True)]
        return f"{brackets[0]}{texts[0]},{texts[1]}{brackets[1]}"

    return st.one_of(
        st.just("empty"),
        st.builds(
            made,
            st.tuples(bounds, bounds),
            st.tuples(st.booleans(), st.booleans()),
            st.sampled_from(["[]", "[)", "(]", "()"]),
        ),
    )


RANGES = {
    "int4range": ranges_over(st.integers(-(2**30), 2**30)),
    "int8range": ranges_over(st.integers(-(2**60), 2**60)),
    "numrange": ranges_over(st.decimals(-(10**20), 10**20)),
    "daterange": ranges_over(st.dates()),
    "tsrange": ranges_over(st.datetimes()),
    "tstzrange": ranges_over(st.datetimes()),
    "pg_temp.letters": ranges_over(text(max_size=4), key=str.encode),
}
MULTIRANGES = {
    name: st.lists(RANGES[over], max_size=3).map(array)
    for name, over in (
        ("int4multirange", "int4range"),
        ("tsmultirange", "tsrange"),
        ("pg_temp.manyletters", "pg_temp.letters"),
    )
}
FIELDS = {
    "int4": STRATEGIES["int4"],
    "text": STRATEGIES["text"],
    "date": STRATEGIES["date"],
    "text[]": arrays_of(STRATEGIES["text"]),
    "float4": STRATEGIES["float4"],
    "tsrange": RANGES["tsrange"],
}
COMPOSITES = st.tuples(*(st.one_of(st.just(""), field.map(word)) for field in FIELDS.values())).map(
    lambda fields: f"({','.join(fields)})"
)
MAPS = st.dictionaries(text(max_size=4), st.one_of(st.none(), text(max_size=4)), max_size=4).map(
    lambda pairs: ", ".join(
        word(key, '\\"') + "=>" + ("NULL" if value is None else word(value, '\\"'))
        for key, value in pairs.items()
    )
)
MADE_OF_OTHERS: dict[str, st.SearchStrategy[str]] = {
    **{f"{name}[]": arrays_of(one) for name, one in STRATEGIES.items() if not name.endswith("[]")},
    **RANGES,
    **MULTIRANGES,
    "timetz": st.builds("{}{}".format, st.times(), OFFSETS),
    "pg_temp.mixed": COMPOSITES,
    "pg_temp.mixed[]": arrays_of(COMPOSITES),
    "tsrange[]": arrays_of(RANGES["tsrange"]),
    "timetz[]": arrays_of(st.builds("{}{}".format, st.times(), OFFSETS)),
}


def make_types(server: psycopg.Connection) -> None:
    """Make the types of ``MADE_OF_OTHERS`` that are none of the server's own."""
    server.execute(
        "CREATE TYPE pg_temp.letters AS RANGE (subtype = text, multirange_type_name = pg_temp.manyletters)"
    )
    fields = ", ".join(f'"{name} ""{number}" {name}' for number, name in enumerate(FIELDS))
    server.execute(f"CREATE TYPE pg_temp.mixed AS ({fields})".encode())


def scratch_table(server: psycopg.Connection, name: str, types: list[str]) -> Layout:
    """Make a temporary table with a column of each type."""
    columns = ", ".join(f"c{number} {sql_type}" for number, sql_type in enumerate(types))
    server.execute(f"CREATE TEMPORARY TABLE {name} ({columns})".encode())
    oid = server.execute(f"SELECT 'pg_temp.{name}'::regclass::oid::int8".encode()).fetchone()[0]
    return Layout.of(read_columns(server, [oid])[oid])


def server_lines(
    server: psycopg.Connection, name: str, layout: Layout, types: list[str], rows: list
) -> bytes:
    """The lines that the server prints for rows whose values are given as text."""
    values = ", ".join(f"%s::text::{sql_type}" for sql_type in types)
    with server.transaction(force_rollback=True):
        with server.cursor() as cursor:
            cursor.executemany(f"INSERT INTO pg_temp.{name} VALUES ({values})", rows)
        expressions = ", ".join(column.kind.expression(f'"{column.name}"') for column in layout.columns)
        statement = f"COPY (SELECT {expressions} FROM pg_temp.{name}) TO STDOUT (FORMAT csv)"
        with server.cursor() as cursor, cursor.copy(statement) as copy:
            return b"".join(bytes(piece) for piece in copy)


def through_parquet(block: bytes, layout: Layout) -> pa.Table:
    """What a Parquet file of these lines has in it."""
    typed = parse_block(block, layout)
    file = io.BytesIO()
    pq.write_table(pa.Table.from_batches([layout.batch(typed)]), file)
    return pq.read_table(file)


def assert_comes_back(server, name: str, layout: Layout, types: list[str], rows: list) -> None:
    """By way of a Parquet file, rows come out as the server's lines."""
    block = server_lines(server, name, layout, types, rows)
    batches = through_parquet(block, layout).to_batches()
    assert b"".join(block_of(batch) for batch in batches) == block

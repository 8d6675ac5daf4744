"""Rows that are restored in binary are those that left, and only where the destination's columns are the source's."""

import threading

import pytest

from exporters import _rows
from exporters.postgres.sessions.connection import parse_url
from exporters.sql.columns import EXACT_OF, TYPE
from exporters.sql.parquet_read import open_part
from migrate.restore.common.table_parts import parts_of
from migrate.restore.postgres.destination import open_destination
from migrate.restore.postgres.restore_state import PostgresState, begin_state
from migrate.restore.postgres.rows import copy_binary
from migrate.restore.postgres.rows.load_rows import RowWriter
from migrate.restore.postgres.rows.prepared_parts import BINARY, CSV, PreparedParts
from tests.exporters.postgres.databases import export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from

TYPES = {
    "a": ("bool", ["true", "false"]),
    "b": ("smallint", ["-32768", "32767", "0"]),
    "c": ("integer", ["-2147483648", "2147483647"]),
    "d": ("bigint", ["-9223372036854775808", "9223372036854775807"]),
    "e": (
        "numeric(15,2)",
        ["9999999999999.99", "-9999999999999.99", "0.01", "-0.01", "100000000", "10000.5"],
    ),
    "f": ("numeric(4,4)", ["0.9999", "-0.0001", "0"]),
    "g": ("numeric(15,15)", ["0.999999999999999", "0.000000000000001"]),
    "h": ("numeric(5,0)", ["-99999", "10000", "9999"]),
    "i": ("numeric(12,3)", ["123456789.001", "-1.5"]),
    "j": ("double precision", ["1e308", "-0.0", "4.9e-324", "0.1"]),
    "k": ("date", ["'0001-01-01'", "'9999-12-31'", "'2000-01-01'", "'1999-12-31'"]),
    "l": ("timestamp", ["'0001-01-01 00:00:00.000001'", "'9999-12-31 23:59:59.999999'"]),
    "m": ("timestamptz(3)", ["'1969-12-31 23:59:59.999+00'"]),
    "n": ("text", ["''", "E'a\\n\"b\",\\\\.'", "repeat('é', 100000)"]),
    "o": ("varchar(9)", ["'x'", "'ä€😀'"]),
    "p": ("char(5)", ["'x'", "''"]),
    "q": ("bytea", ["'\\x'", "'\\x00ff0a'"]),
    "r": ("uuid", ["'00000000-0000-0000-0000-0000000000ff'"]),
    "s": ("real", ["0.1", "-0.0", "1e38", "'NaN'"]),
    "u": ("time(2)", ["'00:00'", "'23:59:59.99'"]),
    "v": ("interval", ["'-1 mon 3 days -0.000001 s'", "'178000000 y'", "'0'"]),
    "w": ("interval second(3)", ["'1.5 s'"]),
    "x": ("json", ["'{\"b\" : [1,  2]}'", "'null'"]),
    "y": ("jsonb", ['\'{"é": "a,\\"b"}\'', "'null'", "'1'"]),
    "z": ("oid", ["4294967295"]),
    "aa": ("text[]", ["'{}'", "ARRAY['', NULL, 'NULL', 'é,\"']", "'{NULL}'"]),
    "ab": ("integer[]", ["'{2147483647,NULL,-1}'", "'{}'"]),
    "ac": ("numeric(5,2)[]", ["'{999.99,-0.01,NULL}'"]),
    "ad": ("varchar(3)[]", ["'{abc,d}'"]),
    "ae": ("char(2)[]", ["'{a,bc}'"]),
    "af": ("real[]", ["'{0.1,NaN}'"]),
    "ag": ("interval[]", ["'{1 day,NULL}'"]),
    "ah": ("timestamptz(0)[]", ["'{2024-01-01 00:00:00+00}'"]),
    "ai": ("bool[]", ["'{t,f,NULL}'"]),
    "aj": ("uuid[]", ["'{00000000-0000-0000-0000-0000000000ff,NULL}'"]),
    "ak": ("bytea[]", ["ARRAY['\\x00'::bytea, '']"]),
    "al": ("date[]", ["'{1999-12-31}'"]),
    "am": ("numeric(20,6)", ["99999999999999.999999", "-0.000001", "1", "-10000"]),
    "an": ("numeric(38,0)", ["99999999999999999999999999999999999999", "-1"]),
    "ao": ("numeric", ["'NaN'", "1e30", "-1e-30", "0.00", "-12345.678", "12345678901234567.1"]),
    "ap": ("numeric[]", ["'{1.50,NULL,NaN}'"]),
    "aq": ("inet", ["'10.0.0.255'", "'::1'", "'192.168.0.1/24'", "'::ffff:1.2.3.4/96'"]),
    "ar": ("inet", ["'0.0.0.0'", "NULL", "'255.255.255.255'"]),
    "at": ("cidr", ["'10.0.0.0/8'", "'2001:db8::/32'"]),
    "au": ("macaddr", ["'08:00:2b:01:02:03'"]),
    "av": ("macaddr8", ["'08:00:2b:01:02:03:04:05'"]),
    "aw": ("bit(11)", ["B'10000000001'", "B'00000000000'"]),
    "ax": ("bit varying", ["B''", "B'1'", "B'10101010'"]),
    "ay": ("point", ["'(1.5,-2)'", "'(Infinity,NaN)'", "NULL", "'(1e300,-0)'"]),
    "az": ("lseg", ["'[(0,1),(2,3)]'"]),
    "ba": ("box", ["'((1,2),(3,4))'"]),
    "bb": ("circle", ["'<(1,2),3>'"]),
    "bc": ("line", ["'{1,-2,3}'"]),
    "bd": ("tsvector", ["$$'a':1A,2 'b':3,16383B$$", "''", "'x y'", "NULL", "$$'é':4C$$"]),
    "be": ("tsvector", ["$$'it''s':1 'b\\\\c' 'a ':2$$", "$$' a ''':3A '\"':1$$"]),
    "bf": ("tsvector", ["$$'ends with 1 ':1 'b':2$$", "$$'1 '$$"]),
    "bg": ("int4range", ["'[1,5)'", "'empty'", "NULL", "'(,3)'", "'[3,)'", "'(,)'"]),
    "bh": ("numrange", ["'[1.50,NaN]'", "'(,2.0]'"]),
    "bi": ("tstzrange", ["'[2024-01-01 00:00+00,2024-01-02 00:00+00]'"]),
    "bj": ("timetz", ["'12:30:00.5+05:30'", "'00:00-12'"]),
    "bk": ("mood", ["'ok'", "'sad \"day\"'"]),
    "bl": ("positive", ["1", "2147483647"]),
    "bm": ("short_text", ["'ab'", "NULL", "''"]),
    "bn": ("pair", ["ROW(1, 'a,\"b')", "ROW(NULL, NULL)", "NULL", "ROW(-1, '')"]),
    "bo": ("name", ["'n'"]),
    "bp": ("citext", ["'Ab'", "''"]),
}
USER_TYPES = """
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('ok', 'sad "day"'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN short_text AS varchar(2); CREATE TYPE pair AS (a int, gone int, b varchar(9));
ALTER TYPE pair DROP ATTRIBUTE gone;
"""
BASES = {"mood": "text", "citext": "text", "positive": "integer", "short_text": "character varying(2)"}
BASES["pair"] = "struct(integer,character varying(9))"
MORE_ROWS = 9000
"""More than are encoded at once."""
MANY = {"c", "d", "e", "h", "k", "n", "am", "ao"}


def rows_of_all_types() -> str:
    columns = ", ".join(f"{name} {declared}" for name, (declared, _) in TYPES.items())
    depth = max(len(values) for _, values in TYPES.values())
    rows = [
        ", ".join(values[number] if number < len(values) else "NULL" for _, values in TYPES.values())
        for number in range(depth)
    ]
    inserts = ", ".join(f"({row})" for row in rows)
    many = ", ".join(f"n::{declared}" if name in MANY else "NULL" for name, (declared, _) in TYPES.items())
    many = many.replace("n::date", "'1950-01-01'::date + n")
    return (
        f"{USER_TYPES} CREATE TABLE every ({columns}); INSERT INTO every VALUES {inserts};"
        f"INSERT INTO every SELECT {many} FROM generate_series(1, {MORE_ROWS}) n;"
        "CREATE TABLE whole (n bigint NOT NULL, gone int, twice bigint GENERATED ALWAYS AS (n * 2) STORED,"
        " t text NOT NULL, v numeric(9,2) NOT NULL); ALTER TABLE whole DROP COLUMN gone;"
        f"INSERT INTO whole (n, t, v) SELECT n, md5(n::text), n / 7.0 FROM generate_series(-5, {MORE_ROWS}) n;"
        "CREATE TABLE others (a xml, d date); INSERT INTO others VALUES ('<a/>', '2024-01-01');"
        "CREATE TABLE side (d date, a int[]);"
        "CREATE TABLE long (j jsonb); INSERT INTO long SELECT to_jsonb(repeat('\"', 5000000));"
        "INSERT INTO side VALUES ('infinity', '{{1,2},{3,4}}'), ('2024-01-01', '[0:1]={1,2}')"
    )


@pytest.fixture
def sent(monkeypatch):
    """What encodes the rows of each part that is made binary."""
    seen: list[copy_binary.Encoder] = []
    real = copy_binary.encoder_of

    def encoder_of(*args):
        if encoder := real(*args):
            seen.append(encoder)
        return encoder

    monkeypatch.setattr(copy_binary, "encoder_of", encoder_of)
    return seen


@pytest.fixture(scope="module")
def every_type(postgres, tmp_path_factory):
    """A database with rows of all types, and a reader of its bundle."""
    url, location = postgres.database(), tmp_path_factory.mktemp("every-type") / "bundle"
    run_sql(url, rows_of_all_types())
    assert export_database(url, location).complete
    return url, read_bundle(location)


def test_every_type_comes_back_as_it_was(every_type, other_postgres, sent):
    url, reader = every_type
    destination = other_postgres.database()
    outcome = restore_from(reader, "app", destination, workers=2)
    assert outcome.findings == ()
    assert len(sent) == 3
    for table in ("every", "whole", "others", "side", "long"):
        query = f"SELECT t::text FROM {table} t ORDER BY 1"
        assert fetch(destination, query) == fetch(url, query)
    zeros = (
        "SELECT float8send(j), numeric_send(e), float4send(s), array_send(aa) FROM every ORDER BY every::text"
    )
    assert fetch(destination, zeros) == fetch(url, zeros)


@pytest.mark.skipif(_rows.core is None, reason="NOT TESTED: the compiled core is not built here")
def test_the_core_makes_the_same_bytes_of_every_type(every_type, monkeypatch):
    _, reader = every_type
    parts = parts_of(reader.tables("app"))
    made = {part.table.name: bytes_of(reader, part) for part in parts}
    monkeypatch.setattr(_rows, "core", None)
    assert {part.table.name: bytes_of(reader, part) for part in parts} == made
    assert sum(map(bool, made.values())) == 3


def bytes_of(reader, part) -> bytes:
    """Return what COPY takes of a part in binary, nothing where it goes as text."""
    file = open_part(reader.open(part.key))
    types = {
        field.name: field.metadata[TYPE].decode()
        for field in file.schema_arrow
        if EXACT_OF not in field.metadata
    }
    bases = {name: BASES[bare] for name, declared in types.items() if (bare := declared[7:]) in BASES}
    encoder = copy_binary.encoder_of(file.schema_arrow, types, bases)
    return b"".join(block for block, _ in encoder.blocks(file)) if encoder else b""


def test_small_tables_are_encoded_together(exported, other_postgres):
    tables = {f"t{number}": ((number - 1) % 3, number) for number in range(1, 13)}
    columns = ("n int, a numeric(9,2), t text", "n int, i xml, t text", "t text")
    values = (
        "n, n - 0.5, 'a,\"b'",
        "nullif(n, 2), xmlelement(name a, n), '\\.'",
        "nullif(left('\\.x', n), '')",
    )
    statements = [
        f"CREATE TABLE {name} ({columns[kind]});"
        f"INSERT INTO {name} SELECT {values[kind]} FROM generate_series(1, {rows}) n;"
        for name, (kind, rows) in tables.items()
    ]
    url, reader = exported("".join(statements))
    destination = other_postgres.database()
    parts = parts_of(reader.tables("app"))
    prepared = PreparedParts(reader)
    prepared.prepare(parts)
    types = (
        {"n": "integer", "a": "numeric(9,2)", "t": "text"},
        {"n": "integer", "i": "xml", "t": "text"},
        {"t": "text"},
    )
    taken = [prepared.take(_part(parts, name), types[kind], "UTF8") for name, (kind, _) in tables.items()]
    options = [part.options for part in taken if part is not None]
    assert options == [(BINARY, CSV, BINARY)[kind] for kind, _ in tables.values()]
    assert restore_from(reader, "app", destination, workers=2).findings == ()
    for name in tables:
        query = f"SELECT t::text FROM {name} t ORDER BY 1"
        assert fetch(destination, query) == fetch(url, query)


def _part(parts, name):
    return next(part for part in parts if part.table.name == name)


def test_a_table_with_other_types_takes_text(exported, other_postgres, sent):
    _, reader = exported("CREATE TABLE t (n bigint, d date); INSERT INTO t VALUES (1, '2024-01-01')")
    destination = other_postgres.database()
    run_sql(destination, "CREATE TABLE t (n numeric, d date)")
    outcome = restore_from(reader, "app", destination, workers=2, only=["data"])
    assert (outcome.findings, sent) == ((), [])
    assert fetch(destination, "SELECT n::text, d::text FROM t") == [("1", "2024-01-01")]


def test_a_prepared_part_is_written_as_it_is_only_where_types_are_the_same(exported, other_postgres, sent):
    _, reader = exported("CREATE TABLE t (n bigint, d date); INSERT INTO t VALUES (1, '2024-01-01')")
    parts = parts_of(reader.tables("app"))
    for declared in ("bigint", "numeric"):
        destination = other_postgres.database()
        run_sql(destination, f"CREATE TABLE t (n {declared}, d date)")
        address = parse_url(destination)
        with open_destination(address) as opened, opened.connection.transaction():
            begin_state(opened.connection, PostgresState("bundle", "app"))
        prepared = PreparedParts(reader)
        prepared.fill(parts, threading.Event())
        assert sent
        sent.clear()
        writer = RowWriter(reader, address, workers=1, advance=lambda *_: None, prepared=prepared)
        assert (writer.write_all(parts), sent) == ([], [])
        assert fetch(destination, "SELECT n::text, d::text FROM t") == [("1", "2024-01-01")]

"""Databases whose encoding is not UTF-8: every value leaves, also one whose bytes are no character to the server."""

import os
from contextlib import closing
from itertools import pairwise, product

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.postgres.catalog import read_tables
from exporters.postgres.charset.encodings import AS_STORED, Codec, may_change
from exporters.postgres.charset.server_conversion import asking
from exporters.postgres.chunk_plan import longest_query
from exporters.postgres.sessions.connection import connect, parse_url
from migrate.browse.table_rows import rows
from migrate.restore.postgres.rows.source_charset import EncodingSplitter
from tests.exporters.postgres.databases import column, dump_bytes, export_database, fetch, run_sql, table
from tests.exporters.postgres.test_session_settings import LimitedHost, export_with, locked
from tests.parquet import check_parquet
from tests.tools.bundles import differences, read_bundle, restore_from, restore_whole
from tests.tools.long_rows import long_rows, short_long_rows

__all__ = ["short_long_rows"]

_CONVERSION = """
CREATE FUNCTION pg_temp.comes_back(code bytea, encoding text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
  RETURN convert(convert(code, encoding, 'UTF8'), 'UTF8', encoding) = code;
EXCEPTION WHEN untranslatable_character OR character_not_in_repertoire THEN RETURN false; END $$
"""
_SINGLE = (
    *(f"LATIN{n}" for n in range(1, 11)),
    *(f"ISO_8859_{n}" for n in range(5, 9)),
    *(f"WIN{n}" for n in (866, 874, *range(1250, 1259))),
    *("KOI8R", "KOI8U"),
)
_USUAL = {"LATIN1", "LATIN3", "WIN874", "WIN1252", "KOI8R"}
_PLANES = {"EUC_JP": b"\x8f", "EUC_JIS_2004": b"\x8f", "EUC_TW": b"\x8e\xa1"}
_HIGH = range(0xA1, 0xFF)


def codes_of(encoding: str) -> list[bytes]:
    """The characters beyond ASCII, known or not."""
    if encoding in _SINGLE:
        return [bytes([byte]) for byte in range(0x80, 0x100)]
    two = [bytes(pair) for pair in product(_HIGH, _HIGH)]
    kana = [bytes([0x8E, byte]) for byte in range(0xA1, 0xE0)] if encoding.startswith("EUC_J") else []
    return [*two, *kana, *(_PLANES[encoding] + code for code in (two if encoding in _PLANES else []))]


def make_databases(encoding: str, *servers) -> list[str]:
    """A database of that encoding, of one name, on each server."""
    name = f"{encoding}_{os.urandom(4).hex()}".lower()
    options = f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0 STRATEGY file_copy"
    for server in servers:
        run_sql(server.url, f"CREATE DATABASE {name} {options}")
    return [server.url_of(name) for server in servers]


def run_bytes(url: str, statements: bytes) -> None:
    with psycopg.connect(url, autocommit=True, client_encoding="SQL_ASCII") as connection:
        connection.execute(statements)


def stored(url: str, expression: str, encoding: str) -> list[bytes]:
    """The bytes of a text, row by row."""
    query = f"SELECT convert_to(concat({expression}), '{encoding}') FROM t ORDER BY id"
    return [row[0] for row in fetch(url, query)]


@pytest.fixture(scope="module")
def server(postgres):
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(_CONVERSION)
        yield connection


_ROWS = b"""
CREATE TYPE pair AS (a text, b int); CREATE TYPE word AS ENUM ('plain', 'w%b');
CREATE TABLE t (id int PRIMARY KEY, a text DEFAULT 'd%b', b char(6), c text[], d pair, e word, j json, n numeric);
COMMENT ON TABLE t IS 'of %b'; CREATE INDEX i ON t (a) WHERE a <> '%b';
CREATE FUNCTION own_code(pair) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'it ran'; END $$;
CREATE CAST (pair AS text) WITH FUNCTION own_code(pair);
CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '%b'::text $$;
INSERT INTO t VALUES (1, '%b', '%b', ARRAY['%b', 'x'], ROW('%b', 1), 'w%b', '["%b"]', 1.5),
  (2, E'",%b\\n"', NULL, ARRAY[['%b'], [NULL]], NULL, 'plain', 'null', NULL),
  (3, '', '', '{}', ROW('', NULL), NULL, NULL, 0),
  (4, 'caf@', 'caf@', '{{caf@}}', ROW('caf@', 4), NULL, '"caf@"', 'NaN'),
  (5, DEFAULT, NULL, NULL, NULL, NULL, NULL, NULL)
"""


@pytest.mark.parametrize(
    ("encoding", "strange", "usual", "character"),
    [
        pytest.param("WIN1252", b"\x81", b"\xe9", None, marks=pytest.mark.torture),
        ("EUC_JP", b"\xad\xf0", b"\xa4\xa2", "\u2252"),
        pytest.param("EUC_TW", b"\x8e\xa1\xc4\xa1", b"\xc4\xa2", "\u4e00", marks=pytest.mark.torture),
    ],
)
def test_values_that_are_not_the_same_by_way_of_utf8_come_back(
    postgres, other_postgres, tmp_path, encoding, strange, usual, character
):
    url, destination = make_databases(encoding, postgres, other_postgres)
    run_bytes(url, _ROWS.replace(b"%b", strange).replace(b"@", usual))
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    tables = [row for row in reader.catalog() if row.kind == "table"]
    assert check_parquet(reader, tables) == []
    assert tables[0].details["exact"] == ["a", "b", "c", "d", "e", "j"]
    assert column(reader, "t", "a$exact") == [
        b"\xff" + strange,
        b'\xff",' + strange + b'\n"',
        None,
        None,
        b"\xffd" + strange,
    ]
    assert column(reader, "t", "c$exact")[3].decode().startswith("{{caf")
    restore_whole(reader, "app", destination, workers=2)
    for expression in ("a", "b", "c", "d", "e", "j", "n"):
        assert stored(destination, expression, encoding) == stored(url, expression, encoding)
    assert dump_bytes(destination) == dump_bytes(url)
    assert differences(reader, destination) == []

    elsewhere = other_postgres.database()
    restored = restore_from(reader, "app", elsewhere, workers=2)
    assert restored.findings == ()
    assert any('"t"."a": 3 have bytes of' in word for word in restored.left_out)
    assert (any("TABLE public.t" in word for word in restored.left_out)) == (encoding != "UTF8")
    assert fetch(elsewhere, "SELECT a FROM t WHERE id = 1") == [(character or "\ufffd",)]
    assert fetch(elsewhere, "SELECT count(*) FROM t") == [(5,)]


def test_single_rows_say_in_which_encoding_a_value_is(postgres, tmp_path):
    (url,) = make_databases("EUC_JP", postgres)
    run_bytes(
        url,
        b"CREATE TABLE t (a text, b text[]); INSERT INTO t VALUES ('\xad\xf0', '{{x},{\xa4\xa2}}'), ('x', '{}')",
    )
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert list(rows(reader, table(reader, "t"), 0, None)) == [
        {"a": {"encoding": "EUC_JP", "base64": "rfA="}, "b": "{{x},{\u3042}}"},
        {"a": "x", "b": []},
    ]


def test_a_changed_byte_is_a_difference(postgres, tmp_path, monkeypatch):
    """Whatever other programs are told to speak."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN2")
    (url,) = make_databases("WIN1252", postgres)
    run_bytes(url, b"CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, '\x81'), (2, 'x')")
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    run_bytes(url, b"UPDATE t SET a = '\x8d' WHERE id = 1")
    (difference,) = differences(reader, url)
    assert [(one.key, one.expected, one.found) for one in difference.rows] == [
        ((("id", "1"),), (("a", "\\xff\\x81"),), (("a", "\\xff\\x8d"),))
    ]


@pytest.mark.parametrize(
    ("encoding", "strange", "usual"),
    [
        ("WIN1252", b"\x81", b"\xe9"),
        pytest.param("EUC_JIS_2004", b"\xab\xe4\xab\xe0", b"\xa4\xa2", marks=pytest.mark.torture),
    ],
)
def test_long_values_that_are_not_the_same_by_way_of_utf8_come_back(
    postgres, other_postgres, tmp_path, encoding, strange, usual
):
    url, destination = make_databases(encoding, postgres, other_postgres)
    script = (
        b"CREATE TABLE t (id int, a text, b text, c text[], x text); INSERT INTO t VALUES"
        b" (1, repeat('ab,c\"%u', 20000) || '%s', repeat('%u', 70000), ARRAY['%s'], repeat('x', 2300000)),"
        b" (2, '%s', repeat('x', 70000), ARRAY[repeat('abcd', 600000), '%s'], '%u')"
    )
    run_bytes(url, script.replace(b"%s", strange).replace(b"%u", usual))
    with long_rows() as long:
        assert export_database(url, tmp_path / "bundle").complete
    assert len(long) == 2
    reader = read_bundle(tmp_path / "bundle")
    assert check_parquet(reader, [row for row in reader.catalog() if row.kind == "table"]) == []
    restore_whole(reader, "app", destination, workers=2)
    for expression in ("a", "b", "c"):
        assert stored(destination, expression, encoding) == stored(url, expression, encoding)


def test_how_long_a_text_is_does_not_lean_on_how_well_it_is_compressed(postgres):
    """Without the compiled core only rows that may be long are read in pieces."""
    [url] = make_databases("WIN1252", postgres)
    run_sql(url, "CREATE TABLE t (x text); INSERT INTO t VALUES (repeat('x', 3000000))")
    with closing(connect(parse_url(url))) as connection:
        [table_of_text] = read_tables(connection)
    [[length]] = fetch(url, longest_query(table_of_text, (0, None)))
    assert length >= 3_000_000


def test_letters_that_become_one_with_the_mark_behind_them_are_kept_as_bytes(server):
    """Each code by itself comes back as it is, and in another company, too."""
    codec = Codec("EUC_JIS_2004", asking(server, "EUC_JIS_2004"))
    tone, other = b"\xab\xe4", b"\xab\xe0"
    assert codec.lines(tone + b"," + other + b"\n") == "\u02e9,\u02e5\n".encode()
    assert (
        codec.lines(tone + other + b',"' + other + b'"\n') == b"\xff" + tone + other + ',"\u02e5"\n'.encode()
    )
    assert codec.lines(b"\xab\xe5,x" + other + b"\n") == "\u02e9\u02e5,x\u02e5\n".encode()
    pieces = [b"x" + b"\xa4\xa2" * 9 + tone, other + b"\xa4\xa2"]
    assert not all(codec.is_faithful(piece) for piece in codec.whole(pieces))


@pytest.mark.parametrize(
    "encoding",
    [pytest.param(encoding, marks=() if encoding in _USUAL else pytest.mark.torture) for encoding in _SINGLE],
)
def test_which_bytes_come_back_is_known(server, encoding):
    codes = codes_of(encoding)
    rows = server.execute(
        "SELECT c, pg_temp.comes_back(c, %s) FROM unnest(%s::bytea[]) AS c", (encoding, codes)
    )
    back = dict(rows.fetchall())
    codec = Codec(encoding, asking(server, encoding))
    assert {code: codec.is_faithful(code) for code in codes} == back
    assert may_change(encoding) == (not all(back.values()))


def test_bytes_that_are_no_utf8_leave_a_database_that_let_them_in(postgres, other_postgres, tmp_path):
    """As one that was moved without a look at its rows."""
    (url,) = make_databases("SQL_ASCII", postgres)
    run_bytes(
        url,
        b"CREATE TABLE t (id int PRIMARY KEY, a text, b text[], j json);"
        b"INSERT INTO t VALUES (1, 'caf\xc3\xa9', '{x}', '{}'), (2, 'caf\xe9', ARRAY['\xff'], '\"\xe9\"'),"
        b" (3, NULL, '{}', NULL)",
    )
    name = url.rpartition("/")[2]
    run_sql(
        postgres.url,
        f"UPDATE pg_database SET encoding = pg_char_to_encoding('UTF8') WHERE datname = '{name}'",
    )
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert check_parquet(reader, [table(reader, "t")]) == []
    assert column(reader, "t", "a") == ["caf\xe9", None, None]
    assert column(reader, "t", "a$exact") == [None, b"caf\xe9", None]
    assert column(reader, "t", "b$exact") == [None, b"{\xff}", None]
    assert next(rows(reader, table(reader, "t"), 1, 2))["a"] == {"encoding": "UTF8", "base64": "Y2Fm6Q=="}
    assert differences(reader, url) == []
    destination = other_postgres.database()
    restored = restore_from(reader, "app", destination)
    assert restored.findings == ()
    assert [word.partition(" have")[0] for word in restored.left_out] == [
        f'the values of "public"."t"."{one}": 1' for one in ("a", "b", "j")
    ]
    assert fetch(destination, "SELECT a, b FROM t WHERE id = 2") == [("caf\ufffd", ["\ufffd"])]


@pytest.mark.parametrize(
    ("encoding", "strange"),
    [pytest.param("WIN1252", b"\x81", marks=pytest.mark.torture), ("SQL_ASCII", b"\xe9")],
)
def test_a_table_that_cannot_be_named_is_a_gap_and_the_rest_leaves(
    postgres, other_postgres, tmp_path, encoding, strange
):
    url, destination = make_databases(encoding, postgres, other_postgres)
    script = (
        b'CREATE TABLE "t%s" (id serial PRIMARY KEY); CREATE TABLE plain ("c%s" text);'
        b"CREATE VIEW v AS SELECT * FROM plain;"
        b"CREATE TYPE pair AS (x text, y int); CREATE TABLE other (p pair); INSERT INTO other VALUES (ROW('%s', 1));"
        b"ALTER TYPE pair RENAME TO \"p%s\"; CREATE TABLE rest (x text); INSERT INTO rest VALUES ('%s')"
    )
    run_bytes(url, script.replace(b"%s", strange))
    outcome = export_database(url, tmp_path / "bundle")
    shown = strange.decode("utf-8", "backslashreplace")
    assert {gap.item for gap in outcome.sources[0].gaps} == {
        f'"public"."t{shown}"',
        f'sequence "public"."t{shown}_id_seq"',
        '"public"."plain"',
        'view "public"."v"',
        '"public"."other"',
    }
    assert all("no character in UTF-8" in gap.reason for gap in outcome.sources[0].gaps)
    reader = read_bundle(tmp_path / "bundle")
    restored = restore_from(reader, "app", destination)
    assert restored.findings == ()
    assert all(word.startswith("the bundle itself lacks") for word in restored.left_out)
    assert fetch(destination, f"SELECT convert_to(x, '{encoding}') FROM rest") == [(strange,)]


def test_a_locked_table_is_left_out_by_its_name_in_the_databases_encoding(postgres, tmp_path):
    (url,) = make_databases("WIN1252", postgres)
    run_sql(url, 'CREATE TABLE "Größe" (x text); CREATE TABLE rest (x text)')
    with locked(url, 'LOCK TABLE U&"Gr\\00f6\\00dfe"'):
        outcome = export_with(LimitedHost(lock_seconds=0.5), url, tmp_path / "bundle")
    assert [gap.item for gap in outcome.sources[0].gaps] == ['"public"."Größe"']


@pytest.mark.torture
@pytest.mark.parametrize("encoding", ["EUC_CN", "EUC_JIS_2004", "EUC_JP", "EUC_KR", "EUC_TW", "WIN1252"])
def test_every_code_comes_back(server, postgres, other_postgres, tmp_path, encoding):
    """Each alone, and a line of them all; EUC_TW: those of two bytes, and the same ones with four."""
    url, destination = make_databases(encoding, postgres, other_postgres)
    codes = codes_of(encoding)
    run_sql(url, "CREATE TABLE t (id int, a text); CREATE TABLE every (id int, a text)")
    with psycopg.connect(url, client_encoding="UTF8") as connection, connection.cursor() as cursor:
        with cursor.copy(f"COPY t FROM STDIN (ENCODING '{encoding}')") as copy:
            copy.write(b"".join(b"%d\t%b\n" % one for one in enumerate(codes)))
        with cursor.copy(f"COPY every FROM STDIN (ENCODING '{encoding}')") as copy:
            copy.write(b"1\t" + b"".join(codes) + b"\n")
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    restore_whole(reader, "app", destination, workers=2)
    assert stored(destination, "a", encoding) == codes
    rows = server.execute("SELECT pg_temp.comes_back(c, %s) FROM unnest(%s::bytea[]) AS c", (encoding, codes))
    odd = [code for code, (back,) in zip(codes, rows.fetchall(), strict=True) if not back]
    assert {one for one in column(reader, "t", "a$exact") if one} == {b"\xff" + code for code in odd}


def test_encodings_in_which_nothing_changes_are_read_as_ever():
    assert not any(may_change(encoding) for encoding in (*AS_STORED, "LATIN1", "KOI8R"))
    assert may_change("WIN1252")


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters='",\n', codec="utf-8"), max_size=4),
            st.none() | st.binary(max_size=5),
        ),
        min_size=1,
    ),
    st.lists(st.integers(0, 60)),
)
def test_bytes_are_told_from_text_wherever_a_line_is_cut(values, cuts):
    expected: list[tuple[bytes, bool]] = []
    line = b""
    for text, own in values:
        if own is None:
            line += text.encode() + b","
            expected.append((text.encode() + b",", False))
            continue
        quoted = any(byte in b'",\n' for byte in own)
        value = own.replace(b'"', b'""')
        quote = b'"' if quoted else b""
        line += text.encode() + b"," + quote + b"\xff" + value + quote + b","
        expected += [(text.encode() + b"," + quote, False), (value, True), (quote + b",", False)]
    line += b"\n"
    expected.append((b"\n", False))
    locations = sorted({min(cut, len(line)) for cut in cuts} | {0, len(line)})
    splitter = EncodingSplitter()
    found: list[tuple[bytes, bool]] = []
    for start, end in pairwise(locations):
        found += splitter.take(line[start:end])
    assert _joined(found) == _joined(expected)


def _joined(pieces: list[tuple[bytes, bool]]) -> list[tuple[bytes, bool]]:
    """Neighbours of one sort as one; nothing of what is empty."""
    found: list[tuple[bytes, bool]] = []
    for text, own in pieces:
        if found and found[-1][1] == own:
            found[-1] = found[-1][0] + text, own
        elif text:
            found.append((text, own))
    return found

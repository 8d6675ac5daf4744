"""Arrays, ranges, composites and maps: typed where they can be, their text where not, and always back as they were."""

import datetime as dt
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.postgres.rows.text_codec.codecs import apart, codec_of, named
from exporters.postgres.sessions.connection import connect, parse_url
from exporters.sql.value_codec import parse_exactly
from tests.exporters.postgres.databases import fetch
from tests.exporters.postgres.values import (
    MADE_OF_OTHERS,
    MAPS,
    arrays_of,
    assert_comes_back,
    make_types,
    scratch_table,
    server_lines,
    through_parquet,
)
from tests.tools.bundles import restore_whole

quick = settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
UTC = dt.UTC


@pytest.fixture(scope="module")
def server(postgres):
    with connect(parse_url(postgres.database())) as connection:
        make_types(connection)
        yield connection


@pytest.fixture(scope="module")
def made_of_others(server):
    return scratch_table(server, "made_of_others", list(MADE_OF_OTHERS))


ROWS = st.tuples(*(st.one_of(st.none(), strategy) for strategy in MADE_OF_OTHERS.values()))


@quick
@given(st.lists(ROWS, min_size=1, max_size=10))
def test_every_row_comes_out_of_parquet_as_the_servers_line(server, made_of_others, rows):
    assert_comes_back(server, "made_of_others", made_of_others, list(MADE_OF_OTHERS), rows)


def bounds(lower, upper, *, lower_inc=True, upper_inc=False, empty=False):
    return {"lower": lower, "upper": upper, "lower_inc": lower_inc, "upper_inc": upper_inc, "empty": empty}


NOTHING = bounds(None, None, lower_inc=False, empty=True)
TYPED = [
    ("bool[]", "{t,f,NULL}", [True, False, None]),
    ("int8[]", "{-9223372036854775808,NULL}", [-(2**63), None]),
    ("text[]", r'{a,"b c","","NULL",null,"q\"u\\o,t{e}","üñ"}', ["a", "b c", "", "NULL", None, 'q"u\\o,t{e}', "üñ"]),
    ("text[]", '{"null"}', ["null"]),
    ("text[]", "{}", []),
    ("varchar(3)[]", '{"\n",x}', ["\n", "x"]),
    ("numeric(5,2)[]", "{1.5,NULL,-0.01}", [Decimal("1.50"), None, Decimal("-0.01")]),
    ("numeric[]", "{1.50,NaN}", ["1.50", "NaN"]),
    ("float4[]", "{0.1,1e6,123456,1e-5,-0}", None),
    ("float8[]", "{0.1,1.5e300,Infinity}", [0.1, 1.5e300, float("inf")]),
    ("bytea[]", r'{"\\x00ff",""}', [b"\x00\xff", b""]),
    ("date[]", "{2020-02-29,NULL}", [dt.date(2020, 2, 29), None]),
    ("timestamptz[]", '{"2020-01-01 00:00:00.5+00"}', [dt.datetime(2020, 1, 1, 0, 0, 0, 500000, tzinfo=UTC)]),
    ("uuid[]", "{00112233-4455-6677-8899-aabbccddeeff}", [UUID("00112233-4455-6677-8899-aabbccddeeff")]),
    ("interval[]", '{"1 mon -2 days"}', [{"months": 1, "days": -2, "micros": 0}]),
    ("jsonb[]", r'{"{\"a\": 1}"}', ['{"a": 1}']),
    ("int4range", "[1,10)", bounds(1, 10)),
    ("int4range", "empty", NOTHING),
    ("int4range", "(,)", bounds(None, None, lower_inc=False)),
    ("numrange", "(1.50,]", bounds("1.50", None, lower_inc=False)),
    ("tsrange", "[2020-01-01,)", bounds(dt.datetime.fromisoformat("2020-01-01"), None)),
    ("pg_temp.letters", r'["a""\\,",z]', bounds('a"\\,', "z", upper_inc=True)),
    ("daterange[]", '{"[2020-01-01,2020-01-03)",empty,NULL}',
     [bounds(dt.date(2020, 1, 1), dt.date(2020, 1, 3)), NOTHING, None]),
    ("int4multirange", "{[1,3),[5,7)}", [bounds(1, 3), bounds(5, 7)]),
    ("int4multirange", "{}", []),
    ("pg_temp.manyletters", r'{["a),(""b",c],[d,"e e"]}',
     [bounds('a),("b', "c", upper_inc=True), bounds("d", "e e", upper_inc=True)]),
    ("timetz", "12:34:56.5+05:30", {"time": dt.time(12, 34, 56, 500000), "utc_offset": 19800}),
    ("timetz", "00:00:00-15:00:07", {"time": dt.time(), "utc_offset": -54007}),
    ("pg_temp.pair", '(1,"x,""y""")', {"a": 1, "b": 'x,"y"'}),
    ("pg_temp.pair", "(,)", {"a": None, "b": None}),
    ("pg_temp.pair", '(,"")', {"a": None, "b": ""}),
    ("pg_temp.pair[]", r'{"(1,\"x y\")",NULL}', [{"a": 1, "b": "x y"}, None]),
    ("pg_temp.nested", r'("(1,\\\\)","{2020-01-01,NULL}")',
     {"p": {"a": 1, "b": "\\"}, "d": [dt.date(2020, 1, 1), None]}),
    ("pg_temp.positive[]", "{1,2}", [1, 2]),
]  # fmt: skip


@pytest.fixture(scope="module")
def named_types(server):
    server.execute(
        "CREATE TYPE pg_temp.pair AS (a int, b text); CREATE TYPE pg_temp.nested AS (p pg_temp.pair, d date[]);"
        "CREATE DOMAIN pg_temp.positive AS int CHECK (VALUE > 0)"
    )


def column(server, sql_type, literal):
    """The typed value and what stands beside it, if anything does."""
    layout = scratch_table(server, "one", [sql_type])
    try:
        table = through_parquet(server_lines(server, "one", layout, [sql_type], [(literal,)]), layout)
    finally:
        server.execute("DROP TABLE pg_temp.one")
    assert not pa.types.is_string(table.schema.field(0).type)
    return [
        table.column(number).to_pylist(maps_as_pydicts="strict")[0] for number in range(table.num_columns)
    ]


@pytest.mark.parametrize(("sql_type", "literal", "expected"), TYPED)
@pytest.mark.usefixtures("named_types")
def test_what_a_type_can_hold_is_typed(server, sql_type, literal, expected):
    column_read = column(server, sql_type, literal)
    assert len(column_read) == 1
    assert expected is None or column_read == [expected]


@pytest.mark.parametrize(
    ("sql_type", "text"),
    [
        ("text[]", "{{a,b},{c,NULL}}"),
        ("text[]", '[0:1]={a,"b c"}'),
        ("date[]", "{infinity,2020-01-01}"),
        ("numeric(5,2)[]", "{NaN,1.00}"),
        ("daterange", "[-infinity,2020-01-01)"),
        ("datemultirange", "{[2020-01-01,infinity)}"),
        ("timetz", "24:00:00+00"),
        ("pg_temp.nested", '("(1,)",{infinity})'),
    ],
)
@pytest.mark.usefixtures("named_types")
def test_what_a_type_cannot_hold_stands_beside_it(server, sql_type, text):
    assert column(server, sql_type, text) == [None, text]


@pytest.fixture(scope="module")
def with_hstore(postgres):
    if not fetch(postgres.url, "SELECT 1 FROM pg_available_extensions WHERE name = 'hstore'"):
        pytest.skip("this PostgreSQL is built without contrib: hstore is not tried")
    with connect(parse_url(postgres.database())) as connection:
        connection.execute("CREATE EXTENSION hstore SCHEMA public")
        types = ["public.hstore", "public.hstore[]"]
        yield connection, scratch_table(connection, "maps", types), types


@quick
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), MAPS), st.one_of(st.none(), arrays_of(MAPS))), min_size=1, max_size=10
    )
)
def test_every_map_comes_out_of_parquet_as_the_servers_line(with_hstore, rows):
    connection, layout, types = with_hstore
    assert_comes_back(connection, "maps", layout, types, rows)


def test_a_map_is_typed(with_hstore):
    connection, layout, types = with_hstore
    rows = [('a=>1, "b c"=>NULL, ""=>"=>", q=>"\\"x, \\\\"', '{"a=>NULL"}'), ("", None), (None, "{}")]
    table = through_parquet(server_lines(connection, "maps", layout, types, rows), layout)
    assert table.num_columns == len(types)
    assert table.column(0).to_pylist(maps_as_pydicts="strict") == [
        {"": "=>", "a": "1", "q": '"x, \\', "b c": None}, {}, None,
    ]  # fmt: skip
    assert table.column(1).to_pylist(maps_as_pydicts="strict") == [[{"a": None}], None, []]


def test_a_composite_of_very_many_fields_is_its_text(server):
    fields = ", ".join(f"f{number} int" for number in range(65))
    server.execute(
        f"CREATE TYPE pg_temp.wide AS ({fields}); CREATE TYPE pg_temp.less_wide AS ({fields[:-9]})".encode()
    )
    wide, several, less = scratch_table(
        server, "of_wide", ["pg_temp.wide", "pg_temp.wide[]", "pg_temp.less_wide"]
    ).fields
    assert wide.type == pa.string()
    assert several.type == pa.list_(pa.string())
    assert pa.types.is_struct(less.type)


def test_text_that_is_no_list_is_not_taken_for_one():
    texts = ["{1,x}", "{1,,2}", "{ 1}", "{01}", "1,2", "", "{1", "1}", "{+1}", "{99999999999}", None, "{1,2}"]
    typed, side = parse_exactly(codec_of("list(int)"), pa.array(texts), pa.list_(pa.int32()))
    assert side.to_pylist() == [*texts[:-2], None, None]
    assert typed.to_pylist() == [None] * 11 + [[1, 2]]


def test_kinds_have_names_that_can_be_taken_apart():
    inner = named("struct", "int", named("list", "text"), named("range", "timestamp"))
    assert apart(named("list", inner)) == ("list", (inner,))
    assert apart(inner) == ("struct", ("int", "list(text)", "range(timestamp)"))
    lists = pa.array([[1, 2]], pa.list_(pa.int32()))
    assert codec_of("int4list").render(lists).to_pylist() == [b"{1,2}"]
    assert apart("datetime.3") == ("datetime.3", ())


def test_tables_of_types_within_types_leave_also_where_nothing_is_in_them(exported, other_postgres):
    """A range's multirange gets a name that the server cuts within a character: it makes it again."""
    long = "x" + "ä" * 30
    _, reader = exported(
        f'CREATE TYPE "{long}" AS RANGE (subtype = uuid); CREATE TYPE pair AS (u uuid, j json[]);'
        f'CREATE TABLE t (a uuid[], b "{long}", c pair[], d "{long}"[]); CREATE TABLE u AS TABLE t;'
        "INSERT INTO u VALUES (NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL)"
    )
    destination = other_postgres.database()
    restore_whole(reader, "app", destination)

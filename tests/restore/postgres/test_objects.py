"""Every kind of object and type, against pg_dump's own words and the rows' digests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg
import pytest

from exporters.postgres.definitions.dump_programs import find_tools
from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.postgres.large_objects import METADATA_VERSION, PIECE_BYTES
from exporters.postgres.live_digests import live_tables
from migrate.bundle.reader import BundleReader
from tests.cli.conftest import call
from tests.exporters.postgres.databases import (
    as_role,
    dump,
    dump_bytes,
    export_database,
    fetch,
    login,
    run_each,
    run_sql,
    script,
)
from tests.parquet import check_parquet
from tests.tools.bundles import differences, read_bundle, restore_from, restore_whole


@pytest.fixture(scope="module")
def objects(postgres) -> str:
    url = postgres.database()
    run_each(url, script("objects.sql"))
    return url


UNWRITTEN = """
SELECT oprname::text, pg_get_userbyid(oprowner), '' FROM pg_operator WHERE oprcode = 0 AND oprname <> '#####'
UNION ALL SELECT t.typname, pg_get_userbyid(typowner), concat(typacl, obj_description(t.oid, 'pg_type'))
  FROM pg_type t JOIN pg_range r ON r.rngmultitypid = t.oid WHERE t.oid > 16383
UNION ALL SELECT lanname, pg_get_userbyid(lanowner),
    concat(lanpltrusted, lanplcallfoid::regproc, laninline::regproc, lanvalidator::regproc)
  FROM pg_language WHERE lanispl AND lanname <> 'plpgsql' ORDER BY 1
"""
"""What pg_dump writes no word about."""


def test_every_object_comes_back(objects, other_postgres, tmp_path):
    outcome = export_database(objects, tmp_path / "bundle")
    assert outcome.complete, outcome.sources
    reader = read_bundle(tmp_path / "bundle")
    tables = [row for row in reader.catalog() if row.kind == "table"]
    assert check_parquet(reader, tables) == []
    destination = other_postgres.database()
    restore_whole(reader, "app", destination, workers=2)
    assert dump(destination) == dump(objects)
    assert live_tables(destination) == live_tables(objects)
    assert differences(reader, destination) == []
    assert any(loss.item == '"public"."distant"' for _, loss in reader.losses())
    query = "SELECT lo_get(7001), pg_get_userbyid(lomowner), lomacl::text FROM pg_largeobject_metadata WHERE oid = 7001"
    assert fetch(destination, query) == fetch(objects, query)
    assert fetch(destination, UNWRITTEN) == fetch(objects, UNWRITTEN)
    orphan = [loss.reason for _, loss in reader.losses() if ".#####(" in loss.item]
    assert orphan == ["it is a shell that no operator names; a dump leaves it out"]


def test_a_database_in_another_encoding_comes_back_with_its_names(postgres, other_postgres, tmp_path):
    for server in (postgres, other_postgres):
        run_sql(server.url, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    url, destination = postgres.url_of("latin"), other_postgres.url_of("latin")
    run_sql(
        url,
        'CREATE TABLE "Größe" (id int PRIMARY KEY, "näme" text DEFAULT \'ü\'); COMMENT ON TABLE "Größe" IS \'é\';'
        'INSERT INTO "Größe" VALUES (1, \'ÿ\'), (2, \'abc\'); CREATE INDEX "ü" ON "Größe" ("näme");'
        'CREATE FUNCTION "ß"() RETURNS text LANGUAGE sql AS $$ SELECT \'ñ\'::text $$; CREATE SEQUENCE "à"',
    )
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert b"Gr\xc3\xb6\xc3\x9fe" in (tmp_path / "bundle/data/app/schema/pre-data.sql").read_bytes()
    assert restore_from(reader, "app", destination, workers=2).findings == ()
    assert dump(destination, "--encoding=UTF8") == dump(url, "--encoding=UTF8")
    unicode_ = other_postgres.database()
    assert restore_from(reader, "app", unicode_, workers=2).findings == ()
    assert fetch(unicode_, 'SELECT "ß"(), "näme" FROM "Größe" WHERE id = 1') == [("ñ", "ÿ")]


def test_definitions_of_a_database_without_encoding_come_back(postgres, other_postgres, tmp_path):
    for server in (postgres, other_postgres):
        run_sql(server.url, "CREATE DATABASE raw ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    url, destination = postgres.url_of("raw"), other_postgres.url_of("raw")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_encoding = 'SQL_ASCII'")
        connection.execute(
            b"CREATE TABLE t (a text DEFAULT '\xff\xfe'); COMMENT ON TABLE t IS 'plain and \xe9'"
        )
        connection.execute(b"INSERT INTO t DEFAULT VALUES; CREATE INDEX i ON t (a) WHERE a <> '\xfd'")
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert restore_from(reader, "app", destination, workers=2).findings == ()
    assert dump_bytes(destination) == dump_bytes(url)
    assert b"\xff\xfe" in dump_bytes(destination)


def test_what_an_extension_marks_as_the_users_rows_comes_back(postgres, other_postgres, tmp_path):
    """The extension is plpgsql, made to own a table: CREATE EXTENSION makes it on the destination, with rows of its
    own."""
    script = (
        "CREATE TABLE public.conf (k text, own bool); INSERT INTO conf VALUES ('built in', true);"
        "CREATE SEQUENCE public.conf_seq;"
        "ALTER EXTENSION plpgsql ADD TABLE conf; ALTER EXTENSION plpgsql ADD SEQUENCE conf_seq;"
        "UPDATE pg_extension SET extconfig = ARRAY['conf'::regclass::oid, 'conf_seq'::regclass::oid],"
        " extcondition = ARRAY['WHERE NOT own', '']"
    )
    url, destination = postgres.database(), other_postgres.database()
    for one in (url, destination):
        run_sql(one, script)
    run_sql(url, "INSERT INTO conf VALUES ('mine', false); SELECT nextval('conf_seq'), nextval('conf_seq')")
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    assert restore_from(reader, "app", destination).findings == ()
    assert fetch(destination, "SELECT k FROM conf ORDER BY k") == [("built in",), ("mine",)]
    assert fetch(destination, "SELECT last_value FROM conf_seq") == [(2,)]
    assert differences(reader, destination) == []


def test_what_was_taken_from_an_extension_and_is_there_again_is_left_out_by_name(
    postgres, other_postgres, tmp_path
):
    if not fetch(postgres.url, "SELECT 1 FROM pg_available_extensions WHERE name = 'hstore'"):
        pytest.skip("this PostgreSQL is built without contrib: extensions are not tried")
    url, destination = postgres.database(), other_postgres.database()
    run_sql(
        url, "CREATE EXTENSION hstore; CREATE TABLE t AS SELECT 'a=>1'::hstore AS h; CREATE INDEX ON t (h)"
    )
    run_sql(url, "ALTER EXTENSION hstore DROP FUNCTION hstore_version_diag(hstore)")
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    outcome = restore_from(reader, "app", destination)
    assert outcome.findings == ()
    message = "the extension hstore has one of its own here"
    assert outcome.left_out == (f"FUNCTION public.hstore_version_diag(public.hstore): {message}",)
    assert fetch(destination, "SELECT h -> 'a' FROM t") == [("1",)]


def test_an_altered_member_of_an_extension_is_left_out_in_the_same_words_again(
    postgres, other_postgres, tmp_path, monkeypatch
):
    if not fetch(postgres.url, "SELECT 1 FROM pg_available_extensions WHERE name = 'lo'"):
        pytest.skip("this PostgreSQL is built without contrib: extensions are not tried")
    url, destination = postgres.database(), login(other_postgres, "lodger")
    run_sql(other_postgres.url, f"ALTER DATABASE {destination.rpartition('/')[2]} OWNER TO lodger")
    run_sql(url, "CREATE EXTENSION lo; ALTER FUNCTION lo_oid(lo) COST 77; CREATE TABLE t (a int)")
    call("export", f"app={url}", "--to", tmp_path / "bundle")
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    command = ("restore", tmp_path / "bundle", f"app={as_role(destination, 'lodger')}", "--json")
    first, second = (call(*command) for _ in range(2))
    left_out = [run.json["result"]["restored"][0]["left_out"] for run in (first, second)]
    assert any("lo_oid" in line for line in left_out[0]), left_out
    assert sorted(left_out[0]) == sorted(left_out[1])
    assert (first.code, second.code) == (3, 3)


OF_EXTENSIONS = {
    "citext": ("citext", "AbC"),
    "cube": ("cube", "(1.5, 2),(3, 4)"),
    "hstore": ("hstore", "a=>1, b=>NULL"),
    "isn": ("isbn", "978-0-393-04002-9"),
    "ltree": ("ltree", "Top.Science.Astronomy"),
    "seg": ("seg", "1.50 .. ~2.0"),
}
"""Types that no part of the program knows, but for one; each a value."""


NAMES = [
    "a.b", 'a"b', "a'b", "new\nline", "tab\tand \\ back", "\r", "ä" * 31 + "x", "a" * 63, "select", "Select", "SELECT",
    " ", "-- x", "/* x", ";", "%s", "{0}", "$1", "$$", "\u202e", "\U0001f600",
]  # fmt: skip
WITH_NAMES = """
CREATE SCHEMA {name};
CREATE TABLE {name}.{name} ({name} serial PRIMARY KEY, t text);
CREATE TABLE {name} ({name} int CONSTRAINT {name} REFERENCES {name}.{name}, {other} text);
CREATE INDEX {index} ON {name} ({name});
COMMENT ON TABLE {name} IS {text};
INSERT INTO {name}.{name} (t) VALUES ({text});
INSERT INTO {name} VALUES (1, {text});
"""
HOLES = (
    "SELECT lo_from_bytea(1, 'first'), lo_put(1, 1000000, 'last'), lo_from_bytea(2, 'head'),"
    " lo_truncate64(lo_open(2, x'20000'::int), 300000), lo_create(4),"
    " lo_from_bytea(3, decode(repeat('61', 2048) || repeat('00', 2048) || repeat('62', 100), 'hex'));"
)
"""One with a hole of several pieces, one that ends with zeros, one with a page of zeros, and an empty one."""
CONSTRUCTORS = """
DROP ROLE IF EXISTS ranger; CREATE ROLE ranger; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
CREATE TYPE span AS RANGE (subtype = int4); GRANT EXECUTE ON FUNCTION span(int, int) TO ranger WITH GRANT OPTION;
"""


@dataclass(frozen=True)
class Mixture:
    """A database of several odd things that was moved: the old one, its bundle, and the new one."""

    source: str
    reader: BundleReader
    destination: str
    types: Mapping[str, tuple[str, str]]
    """Those of ``OF_EXTENSIONS`` that both servers have."""


@pytest.fixture(scope="module")
def mixture(postgres, other_postgres, tmp_path_factory) -> Iterator[Mixture]:
    query = "SELECT name FROM pg_available_extensions"
    available = set.intersection(
        *({name for (name,) in fetch(s.url, query)} for s in (postgres, other_postgres))
    )
    types = {name: value for name, value in OF_EXTENSIONS.items() if name in available}
    source, destination = postgres.database(), other_postgres.database()
    statements = [
        f"CREATE EXTENSION {name}; CREATE TABLE of_{name} (v {type_}, vs {type_}[], k {type_} DEFAULT '{value}');"
        f"INSERT INTO of_{name} VALUES ('{value}', ARRAY['{value}', NULL]::{type_}[], NULL);"
        f"INSERT INTO of_{name} VALUES (NULL, '{{}}');"
        for name, (type_, value) in types.items()
    ]
    for name in NAMES:
        words = {"name": name, "other": "_" + name[:20], "index": "i" + name[:20]}
        quoted = {key: quote_name(word) for key, word in words.items()}
        statements.append(WITH_NAMES.format(**quoted, text=quote_literal(name)))
    run_sql(source, "".join([*statements, HOLES, CONSTRUCTORS]))
    location = tmp_path_factory.mktemp("mixture") / "bundle"
    try:
        assert export_database(source, location).complete
        reader = read_bundle(location)
        restore_whole(reader, "app", destination, workers=2)
        yield Mixture(source, reader, destination, types)
    finally:
        for one in (source, destination):
            run_sql(one, "DROP OWNED BY ranger; DROP ROLE ranger")


def test_all_of_a_mixture_comes_back(mixture):
    assert check_parquet(mixture.reader, mixture.reader.catalog()) == []
    assert dump(mixture.destination) == dump(mixture.source)
    assert differences(mixture.reader, mixture.destination) == []


def test_types_of_extensions_come_back(mixture):
    if not mixture.types:
        pytest.skip("this PostgreSQL is built without contrib: types of extensions are not tried")
    for name in mixture.types:
        query = f"SELECT v::text, vs::text, k::text FROM of_{name} ORDER BY 1"
        assert fetch(mixture.destination, query) == fetch(mixture.source, query)


def test_names_of_every_kind_come_back(mixture):
    others = {"pg_largeobject", *(f"of_{name}" for name in mixture.types)}
    assert {row.name for row in mixture.reader.catalog()} - others == set(NAMES)


def test_holes_of_large_objects_stay_holes(mixture):
    destination = mixture.destination
    sizes = "SELECT oid, length(lo_get(oid)), replace(encode(lo_get(oid), 'escape'), '\\000', '') FROM"
    assert fetch(destination, f"{sizes} pg_largeobject_metadata WHERE oid < 10 ORDER BY 1") == [
        (1, 1000004, "firstlast"),
        (2, 300000, "head"),
        (3, 4196, "a" * 2048 + "b" * 100),
        (4, 0, ""),
    ]
    pages = dict(fetch(destination, "SELECT loid, count(*) FROM pg_largeobject GROUP BY 1"))
    assert pages[3] == 2
    assert pages[1] <= 2 + 1000004 // PIECE_BYTES
    assert pages[2] <= 1 + 300000 // PIECE_BYTES + 1


def test_privileges_of_the_functions_that_make_ranges_come_back(mixture):
    """pg_dump writes none of them; the default would let everybody call them."""
    query = "SELECT pronargs, proacl::text FROM pg_proc WHERE proname ~ '^span' ORDER BY proname, pronargs"
    assert fetch(mixture.destination, query) == fetch(mixture.source, query)


LABELLED = """
DROP ROLE IF EXISTS cleared, stranger; CREATE ROLE cleared; CREATE ROLE stranger; CREATE TABLE t AS SELECT 1 AS a;
GRANT SELECT ON t TO cleared; SELECT lo_from_bytea(4711, 'x'); SET allow_system_table_mods = on;
INSERT INTO pg_seclabel (objoid, classoid, objsubid, provider, label) VALUES
  ('t'::regclass, 'pg_class'::regclass, 0, 'dummy', 'secret'), (4711, 'pg_largeobject'::regclass, 0, 'dummy', 'x');
INSERT INTO pg_shseclabel (objoid, classoid, provider, label) VALUES
  ('cleared'::regrole, 'pg_authid'::regclass, 'dummy', 'a role''s'),
  ('stranger'::regrole, 'pg_authid'::regclass, 'dummy', 'x'),
  ((SELECT oid FROM pg_database WHERE datname = current_database()), 'pg_database'::regclass, 'dummy', 'x');
"""
UNLABELLED = """
SET allow_system_table_mods = on; DELETE FROM pg_shseclabel; DROP OWNED BY cleared; DROP ROLE cleared, stranger
"""


def test_security_labels_that_no_definition_holds_are_named_and_others_where_their_provider_is_missing(
    postgres, other_postgres, tmp_path
):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, LABELLED)
    try:
        assert export_database(url, tmp_path / "bundle").complete
        reader = read_bundle(tmp_path / "bundle")
        outcome = restore_from(reader, "app", destination)
    finally:
        run_sql(url, UNLABELLED)
        run_sql(destination, "DROP OWNED BY cleared; DROP ROLE cleared")
    labels = {loss.item: loss.reason for _, loss in reader.losses() if loss.property == "security label"}
    with psycopg.connect(url) as connection:
        newer = find_tools(connection.info.server_version // 10000).major >= METADATA_VERSION
    assert bool(labels.pop("large object 4711", "")) is newer
    words = "that of dummy is left out; set it again on the destination:"
    assert labels == {
        f"database {url.rpartition('/')[2]}": f"{words} 'x'",
        "role cleared": f"{words} 'a role''s'",
    }
    (refused,) = [line for line in outcome.left_out if "public.t" in line or "TABLE t" in line]
    assert 'security label provider "dummy" is not loaded' in refused

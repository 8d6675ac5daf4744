"""A damaged file of a bundle costs its own rows; once it is repaired, the same command brings these, too."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters.postgres import chunk_plan
from exporters.sql.parquet_read import READ_ERRORS
from migrate.bundle import layout
from migrate.errors import UsageError
from migrate.restore.postgres.rows import copy_binary, large_objects
from tests.exporters.postgres.databases import dump, export_database, fetch, run_sql, table
from tests.tools.bundles import put_in_place_of, read_bundle, restore_from, restore_whole

SOURCE = """
CREATE TABLE parent AS SELECT n AS id, repeat(md5(n::text), 4) AS t FROM generate_series(1, 20000) n;
ALTER TABLE parent ADD PRIMARY KEY (id);
CREATE TABLE child (id int REFERENCES parent); INSERT INTO child SELECT id FROM parent;
CREATE TABLE other AS SELECT n AS id FROM generate_series(1, 10) n;
CREATE TABLE gone AS SELECT n AS id FROM generate_series(1, 10) n;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM parent;
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''fired''; END';
CREATE TRIGGER always BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION no();
ALTER TABLE parent ENABLE ALWAYS TRIGGER always;
CREATE FUNCTION seen(int) RETURNS bool LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT FROM public.gone WHERE id = $1)';
CREATE TABLE asking (id int CONSTRAINT seen CHECK (seen(id))); INSERT INTO asking VALUES (3);
SELECT lo_from_bytea(77001, 'large'), lo_from_bytea(77002, 'larger');
COMMENT ON LARGE OBJECT 77001 IS 'of one';
CREATE FUNCTION seen_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER last ON ddl_command_end EXECUTE FUNCTION seen_ddl();
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem TO 5000', current_database()); END $$;
"""


def test_all_that_is_whole_comes_back_and_the_rest_after_a_repair(
    postgres, other_postgres, tmp_path, monkeypatch
):
    url, destination, location = postgres.database(), other_postgres.database(), tmp_path / "bundle"
    run_sql(url, SOURCE)
    monkeypatch.setattr(chunk_plan, "CHUNK_BYTES", 300_000)
    assert export_database(url, location).complete
    reader = read_bundle(location)
    parts = {name: table(reader, name).details["parts"] for name in ("parent", "gone", "pg_largeobject")}
    assert len(parts["parent"]) > 3
    damaged = location / layout.source_file("app", parts["parent"][1]["name"])
    missing = location / layout.source_file("app", parts["gone"][0]["name"])
    objects = location / layout.source_file("app", parts["pg_largeobject"][0]["name"])
    whole = {path: path.read_bytes() for path in (damaged, missing, objects)}
    damaged.write_bytes(whole[damaged][: len(whole[damaged]) // 2])
    missing.unlink()
    objects.write_bytes(b"")
    for _ in range(2):
        outcome = restore_from(reader, "app", destination, workers=2)
        assert [one.partition(": ")[0] for one in outcome.findings] == [
            '"pg_catalog"."pg_largeobject"',
            '"public"."gone"',
            '"public"."parent"',
            '"public"."asking"',
        ]
        for path in whole:
            assert str(path.relative_to(location)) in "".join(outcome.findings)
        assert "moveout transfer --recheck" in outcome.notes[-1]
        assert [one.partition(" (")[0].partition(": ")[0] for one in outcome.left_out] == [
            "TRIGGER public.parent always",
            'rows of "public"."asking"',
            "FK CONSTRAINT public.child child_id_fkey",
            'the rows of materialized view "public"."counted"',
            "EVENT TRIGGER last",
            "settings of the database",
        ]
    assert fetch(destination, "SELECT count(*) FROM child") == [(20000,)]
    lost = parts["parent"][1]["rows"]
    assert fetch(destination, "SELECT count(*), (SELECT n FROM counted) FROM parent") == [
        (20000 - lost, 20000 - lost)
    ]
    for path, data in whole.items():
        path.write_bytes(data)
    restore_whole(reader, "app", destination, workers=2)
    assert sorted(dump(destination).splitlines()) == sorted(dump(url).splitlines())


def test_a_damaged_file_that_can_be_read_is_named_with_its_table(exported, other_postgres, tmp_path):
    _, reader = exported("CREATE TABLE t AS SELECT 'unmistakable' AS a; CREATE TABLE u AS SELECT 1 AS a")
    (part,) = table(reader, "t").details["parts"]
    key = layout.source_file("app", part["name"])
    file = tmp_path / "bundle" / key
    file.write_bytes(file.read_bytes().replace(b"unmistakable", b"unmistakeble"))
    outcome = restore_from(reader, "app", other_postgres.database())
    difference, damage = outcome.findings
    assert difference.startswith('"public"."t": expected digest ')
    assert damage.startswith(f'"public"."t": {key} is damaged: its SHA-256 is not that of the manifest')


@pytest.mark.parametrize(
    "rows",
    [
        {"oid": [1], "start": [0]},
        {"oid": [1], "start": [0], "data": [None]},
        {"oid": ["1"], "start": [0], "data": [b""]},
    ],
)
def test_pieces_of_large_objects_that_are_none_cannot_be_read(rows):
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(rows), out)
    with pytest.raises(READ_ERRORS):
        list(large_objects.pieces_of(pq.ParquetFile(out.getvalue())))


def test_a_field_without_its_type_is_not_copied_in_binary():
    assert copy_binary.encoder_of(pa.schema([("n", pa.int32())]), {}) is None


@pytest.mark.parametrize(
    "values", [pa.array([[1]]), pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string()))]
)
def test_a_part_whose_values_are_not_of_the_kind_that_it_names_is_damage_and_the_rest_comes(
    postgres, other_postgres, tmp_path, values
):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE other AS SELECT 2 AS b")
    assert export_database(url, tmp_path).complete
    reader = read_bundle(tmp_path)
    (part,) = table(reader, "t").parts
    path = tmp_path / layout.source_file("app", part["name"])
    field = pq.read_schema(path).field("a")
    pq.write_table(pa.table([values], pa.schema([field.with_type(values.type)])), path)
    outcome = restore_from(reader, "app", destination)
    assert any(part["name"] in finding for finding in outcome.findings), outcome
    assert fetch(destination, "SELECT b FROM other") == [(2,)]


def test_a_script_that_is_none_is_named(postgres, other_postgres, tmp_path):
    url = postgres.database()
    run_sql(url, "CREATE TABLE t (a int PRIMARY KEY)")
    assert export_database(url, tmp_path).complete
    key = layout.source_file("app", "schema/post-data.sql")
    script = (tmp_path / key).read_bytes()
    put_in_place_of(tmp_path, key, key, b"ON UPDATE;\n" + script)
    with pytest.raises(UsageError, match=r"post-data\.sql cannot be restored: syntax error"):
        restore_from(read_bundle(tmp_path), "app", other_postgres.database())

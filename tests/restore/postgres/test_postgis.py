"""PostGIS: shapes travel as EWKB and come back the same; skipped where the extension is not there."""

import pyarrow.parquet as pq
import pytest

from migrate.bundle import layout
from tests.exporters.postgres.databases import export_database, fetch, run_sql
from tests.parquet import check_parquet
from tests.tools.bundles import differences, read_bundle, restore_whole

SHAPES = [
    "'SRID=4326;POINT(1.5 -0.1)'",
    "'POINT EMPTY'",
    "'SRID=3857;POLYGON((0 0,0 1e300,1 1,0 0),(0.1 0.1,0.1 0.2,0.2 0.2,0.1 0.1))'",
    "'GEOMETRYCOLLECTION Z(POINT Z(1 2 3),LINESTRING Z(0 0 0,1 1 1))'",
    "'MULTIPOINT ZM((1 2 3 4),(5 6 7 8))'",
    "'CIRCULARSTRING(0 0,1 1,2 0)'",
    "NULL",
]
SCRIPT = f"""
CREATE EXTENSION postgis;
INSERT INTO spatial_ref_sys VALUES (990001, 'ours', 1, 'LOCAL_CS["ours"]', '+proj=longlat');
CREATE TABLE shapes (id int PRIMARY KEY, g geometry, p geometry(PointZ, 990001), e geography(LineString, 4326),
  b box2d, several geometry[]);
INSERT INTO shapes (id, g) VALUES {", ".join(f"({n}, {shape})" for n, shape in enumerate(SHAPES))};
INSERT INTO shapes VALUES (100, NULL, 'SRID=990001;POINT Z(1 2 3)', 'LINESTRING(0 0, 179.9 -89.9)', 'BOX(0 0,1 2)',
  ARRAY['SRID=4326;POINT(1 2)'::geometry, NULL]);
CREATE INDEX ON shapes USING gist (g);
ALTER TABLE shapes ADD CHECK (g IS NULL OR ST_NDims(g) > 1);
CREATE VIEW areas AS SELECT id, ST_Area(g) AS area FROM shapes;
"""
COLUMNS = "id, encode(ST_AsEWKB(g), 'hex'), ST_AsEWKT(p), ST_AsEWKT(e), b::text, several::text"
QUERY = f"SELECT {COLUMNS} FROM shapes ORDER BY id"


@pytest.fixture(scope="module")
def source(postgres):
    url = postgres.database()
    if not fetch(url, "SELECT 1 FROM pg_available_extensions WHERE name = 'postgis'"):
        pytest.skip(
            "NOT TESTED: the server has no PostGIS; on Debian: apt-get install postgresql-15-postgis-3"
        )
    run_sql(url, SCRIPT)
    return url


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory):
    location = tmp_path_factory.mktemp("postgis") / "bundle"
    outcome = export_database(source, location)
    assert outcome.complete, outcome.sources
    return read_bundle(location)


def test_shapes_are_ewkb_in_hexadecimal(source, bundle):
    (row,) = (row for row in bundle.catalog() if row.name == "shapes")
    table = pq.read_table(
        bundle.open(layout.source_file("app", row.details["parts"][0]["name"])), columns=["id", "g"]
    )
    found = {one["id"]: one["g"] for one in table.to_pylist()}
    assert found == {
        number: None if shape is None else shape.upper() for number, shape, *_ in fetch(source, QUERY)
    }
    assert check_parquet(bundle, bundle.catalog()) == []


def test_they_come_back(source, bundle, other_postgres):
    destination = other_postgres.database()
    restore_whole(bundle, "app", destination, workers=2)
    assert fetch(destination, QUERY) == fetch(source, QUERY)
    assert fetch(destination, "SELECT * FROM areas ORDER BY id") == fetch(
        source, "SELECT * FROM areas ORDER BY id"
    )
    systems = "SELECT count(*), max(srid) FROM spatial_ref_sys"
    assert fetch(destination, systems) == fetch(source, systems)
    assert differences(bundle, destination) == []

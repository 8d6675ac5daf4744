"""What other tools lose on the way is kept: as the Parquet files have it, and as the new server has it.

| what they lose | test |
|---|---|
| numeric becomes DOUBLE or NULL, or is cut to 38 digits | ``test_numbers_keep_every_digit`` |
| NaN becomes 0 or NULL | ``test_what_is_no_number_stays_so`` |
| ±infinity of dates and times wraps around | ``test_moments_without_end_and_far_away_stay_where_they_are`` |
| arrays of more dimensions are flattened, their bounds forgotten | ``test_arrays_keep_their_shape`` |
| the padding of char(n) is stripped | ``test_padding_stays`` |
| unsigned becomes float or negative | ``test_unsigned_numbers_stay_whole`` |
| tinyint(1) becomes a boolean | ``test_tinyint_of_one_digit_is_a_number`` |
| zero dates become 1970, or NULL | ``test_zero_and_partial_dates_stay`` |
| the year 0009 becomes NULL or 2009 | ``test_early_years_stay`` |
| rows at the boundary of two chunks are skipped, or come twice | ``test_every_row_at_a_boundary_comes_once`` |
| sequences and AUTO_INCREMENT begin at 1 again | ``test_counters_go_on`` |
| extensions and generated columns are forgotten | ``test_generated_columns_and_extensions_are_there`` |
| to compare and find a difference is exit code 0 | ``test_a_difference_is_an_exit_code`` |
"""

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters.mysql import chunk_plan as of_mysql
from exporters.postgres import chunk_plan as of_postgres
from migrate.bundle.reader import BundleReader
from tests.cli.conftest import call
from tests.exporters.mysql import databases as my
from tests.exporters.postgres import databases as pg
from tests.tools.bundles import read_bundle, restore_from

HERE = Path(__file__).parent


class Moved:
    """A database, what its bundle has of it, and the one that was made of that."""

    def __init__(self, url: str, destination: str, reader: BundleReader) -> None:
        self.url, self.destination, self.reader = url, destination, reader

    def column(self, name: str, table: str = "kept") -> pa.ChunkedArray:
        parts = next(row.details["parts"] for row in self.reader.catalog() if row.name == table)
        files = [self.reader.open(f"data/app/{part['name']}") for part in parts]
        return pa.chunked_array([chunk for file in files for chunk in pq.read_table(file)[name].chunks])


@pytest.fixture(scope="module")
def moved(postgres, other_postgres, tmp_path_factory) -> Moved:
    url, destination = postgres.database(), other_postgres.database()
    pg.run_sql(url, (HERE / "peers_postgres.sql").read_text())
    location = tmp_path_factory.mktemp("peers") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_postgres, "CHUNK_BYTES", 40_000)
        assert pg.export_database(url, location).complete
    reader = read_bundle(location)
    assert restore_from(reader, "app", destination, workers=2).findings == ()
    return Moved(url, destination, reader)


@pytest.fixture(scope="module")
def my_moved(mariadb, other_mariadb, tmp_path_factory) -> Moved:
    url, destination = mariadb.database(), other_mariadb.database()
    my.run_sql(url, (HERE / "peers_mariadb.sql").read_text())
    location = tmp_path_factory.mktemp("peers") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_mysql, "CHUNK_BYTES", 40_000)
        assert my.export_database(url, location).complete
    reader = read_bundle(location)
    assert restore_from(reader, "app", destination, workers=2).findings == ()
    return Moved(url, destination, reader)


def both(moved: Moved, fetch, query: str) -> list[tuple]:
    """What a query finds in the new database, as in the old one."""
    rows = fetch(moved.destination, query)
    assert rows == fetch(moved.url, query)
    return rows


def test_numbers_keep_every_digit(moved, my_moved):
    wide = "1234567890123456789012345678901234567890.12345678901234567890"
    assert moved.column("wide").to_pylist() == [wide, "-0.00000000000000000001"]
    assert moved.column("money_").type == pa.decimal128(12, 2)
    assert both(moved, pg.fetch, "SELECT wide::text, plain FROM kept WHERE id = 1") == [
        (wide, Decimal("0.1"))
    ]
    d65 = "12345678901234567890123456789012345.123456789012345678901234567890"
    assert my_moved.column("d65")[0].as_py() == d65
    assert both(my_moved, my.fetch, "SELECT CAST(d65 AS CHAR) FROM kept WHERE id = 1") == [(d65,)]


def test_what_is_no_number_stays_so(moved):
    assert moved.column("money_").to_pylist() == [None, Decimal("9999999999.99")]
    assert moved.column("money_$exact").to_pylist() == ["NaN", None]
    assert both(moved, pg.fetch, "SELECT money_::text, plain::text FROM kept ORDER BY id") == [
        ("NaN", "0.1"),
        ("9999999999.99", "NaN"),
    ]


def test_moments_without_end_and_far_away_stay_where_they_are(moved):
    assert moved.column("day$exact").to_pylist() == ["infinity", None]
    assert moved.column("at$exact").to_pylist() == ["-infinity", "0044-03-15 00:00:00+00 BC"]
    query = "SELECT day::text, (at AT TIME ZONE 'UTC')::text FROM kept ORDER BY id"
    assert both(moved, pg.fetch, query) == [
        ("infinity", "-infinity"),
        ("0009-01-02", "0044-03-15 00:00:00 BC"),
    ]


def test_arrays_keep_their_shape(moved):
    assert moved.column("squares$exact").to_pylist() == ["{{1,2},{3,4}}", None]
    assert moved.column("based$exact").to_pylist() == ["[0:1]={7,8}", None]
    assert both(moved, pg.fetch, "SELECT array_dims(squares), array_dims(based) FROM kept ORDER BY id") == [
        ("[1:2][1:2]", "[0:1]"),
        ("[1:1]", "[1:1]"),
    ]


def test_padding_stays(moved):
    assert moved.column("padded").to_pylist() == ["ab    ", "abcdef"]
    assert both(moved, pg.fetch, "SELECT padded, octet_length(padded) FROM kept WHERE id = 1") == [
        ("ab    ", 6)
    ]


def test_unsigned_numbers_stay_whole(my_moved):
    assert my_moved.column("u").type == pa.uint64()
    assert my_moved.column("u").to_pylist() == [2**64 - 1, 2**63, 0]
    assert both(my_moved, my.fetch, "SELECT u FROM kept ORDER BY id") == [(2**64 - 1,), (2**63,), (0,)]


def test_tinyint_of_one_digit_is_a_number(my_moved):
    assert my_moved.column("flag").type == pa.int8()
    assert my_moved.column("flag").to_pylist() == [2, -128, 1]
    assert both(my_moved, my.fetch, "SELECT flag FROM kept ORDER BY id") == [(2,), (-128,), (1,)]


def test_zero_and_partial_dates_stay(my_moved):
    assert my_moved.column("day$exact").to_pylist() == ["0000-00-00", "2020-00-00", None]
    query = "SELECT CAST(day AS CHAR), CAST(at AS CHAR), CAST(ts AS CHAR) FROM kept ORDER BY id"
    assert both(my_moved, my.fetch, query)[0] == ("0000-00-00", "0000-00-00 00:00:00", "0000-00-00 00:00:00")
    assert both(my_moved, my.fetch, query)[2][1] == "2020-02-31 01:02:03"


def test_early_years_stay(moved, my_moved):
    assert [day.year for day in moved.column("day").to_pylist() if day] == [9]
    assert [day.year for day in my_moved.column("day").to_pylist() if day] == [9]
    assert both(my_moved, my.fetch, "SELECT YEAR(day), YEAR(at) FROM kept WHERE id > 1 ORDER BY id") == [
        (2020, 9),
        (9, 2020),
    ]


def test_every_row_at_a_boundary_comes_once(moved, my_moved):
    for one, fetch in ((moved, pg.fetch), (my_moved, my.fetch)):
        (row,) = [row for row in one.reader.catalog() if row.name == "many"]
        assert len(row.details["parts"]) > 5
        assert sorted(one.column("n", "many").to_pylist()) == list(range(1, 3001))
        assert both(one, fetch, "SELECT count(*), count(DISTINCT n), sum(n) FROM many") == [
            (3000, 3000, 4501500)
        ]


def test_counters_go_on(moved, my_moved):
    pg.run_sql(moved.destination, "INSERT INTO kept (plain) VALUES (77)")
    assert pg.fetch(moved.destination, "SELECT id FROM kept WHERE plain = 77") == [(4712,)]
    pg.run_sql(moved.destination, "DELETE FROM kept WHERE plain = 77")
    my.run_sql(my_moved.destination, "INSERT INTO kept (u) VALUES (77)")
    assert my.fetch(my_moved.destination, "SELECT id FROM kept WHERE u = 77") == [(4711,)]
    my.run_sql(my_moved.destination, "DELETE FROM kept WHERE u = 77")


def test_generated_columns_and_extensions_are_there(moved, my_moved):
    generated = "SELECT attname FROM pg_attribute WHERE attrelid = 'kept'::regclass AND attgenerated = 's'"
    assert both(moved, pg.fetch, generated) == [("twice",)]
    assert both(moved, pg.fetch, "SELECT extname, extversion FROM pg_extension ORDER BY 1")
    assert both(moved, pg.fetch, "SELECT twice::text FROM kept ORDER BY id") == [
        ("NaN",),
        ("19999999999.98",),
    ]
    shown = "SELECT twice = d65 * 2, shown FROM kept ORDER BY id"
    assert both(my_moved, my.fetch, shown) == [(1, "n2"), (1, "n-128"), (1, "n1")]


def test_a_difference_is_an_exit_code(moved, my_moved):
    for one, run_sql in ((moved, pg.run_sql), (my_moved, my.run_sql)):
        location = one.reader.store.location.removeprefix("file://")
        words = ("verify", location, "--against", f"app={one.destination}")
        assert call(*words).code == 0
        run_sql(one.destination, "UPDATE many SET t = 'y' WHERE n = 1500")
        assert call(*words).code == 6
        run_sql(
            one.destination,
            "UPDATE many SET t = (SELECT o.t FROM (SELECT t FROM many WHERE n = 1) o) WHERE n = 1500",
        )

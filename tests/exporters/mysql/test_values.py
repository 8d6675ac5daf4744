"""Any value of any type makes the round trip, as the servers' own checksums see it."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.exporters.mysql.databases import checksums, export_database, run_sql
from tests.exporters.mysql.values import STRATEGIES
from tests.parquet import check_parquet
from tests.tools.bundles import differences, read_bundle, restore_from

COLUMNS = ", ".join(f"c{number} {sql_type}" for number, sql_type in enumerate(STRATEGIES))
ROWS = st.tuples(*(st.one_of(st.just("NULL"), values) for values in STRATEGIES.values()))
few = settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(st.lists(ROWS, min_size=5, max_size=30))
def test_every_row_comes_back(mariadb, other_mariadb, tmp_path_factory, rows):
    url, destination = mariadb.database(), other_mariadb.database()
    lines = ", ".join(f"({', '.join(row)})" for row in rows)
    run_sql(
        url,
        "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00';"
        f"CREATE TABLE t ({COLUMNS}) CHARACTER SET utf8mb4; INSERT INTO t VALUES {lines}",
    )
    location = tmp_path_factory.mktemp("any") / "bundle"
    assert export_database(url, location).complete
    reader = read_bundle(location)
    assert check_parquet(reader, reader.catalog()) == []
    assert restore_from(reader, "app", destination).findings == ()
    assert checksums(destination) == checksums(url)
    assert differences(reader, destination) == []

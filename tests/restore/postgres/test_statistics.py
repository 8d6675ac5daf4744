"""Every table has statistics afterwards, but those that the server cannot analyze, which are named."""

import pytest

from exporters.postgres.sessions.connection import parse_url
from migrate.restore.postgres.destination import open_destination
from migrate.restore.postgres.statistics import Analysis, grouped
from tests.exporters.postgres.databases import fetch, run_sql

_TABLES = 70
"""More than two statements analyze."""
_MAKE = f"""
DO $$ BEGIN FOR n IN 1..{_TABLES} LOOP
  EXECUTE format('CREATE TABLE t%s AS SELECT i FROM generate_series(1, 3) i', n);
END LOOP; END $$
"""
_ANALYZED = "SELECT count(DISTINCT tablename) FROM pg_stats WHERE schemaname = 'public'"


def _analyze(url: str, sessions: int) -> list[str]:
    with open_destination(parse_url(url)) as destination:
        return Analysis(destination).run(sessions)


@pytest.mark.parametrize("sessions", [1, 2])
def test_a_table_that_cannot_be_analyzed_costs_only_its_own_statistics(postgres, sessions):
    url = postgres.database()
    run_sql(url, _MAKE)
    run_sql(
        url,
        "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql"
        " AS $$ SELECT $1 / current_setting('test.divisor')::int $$;"
        " SET test.divisor = 1; CREATE INDEX ON t7 (f(i))",
    )
    [note] = _analyze(url, sessions)
    assert note.startswith(
        "these tables have no statistics yet: public.t7 (unrecognized configuration parameter"
    )
    assert fetch(url, _ANALYZED) == [(_TABLES - 1,)]


@pytest.mark.parametrize(
    ("tables", "sessions", "sizes"), [(0, 2, []), (1, 2, [1]), (2, 1, [2]), (5, 2, [3, 2])]
)
def test_each_session_has_a_statement(tables, sessions, sizes):
    assert list(map(len, grouped([("public", f"t{n}") for n in range(tables)], sessions))) == sizes


def test_one_session_is_enough_where_the_server_allows_no_other(postgres):
    url = postgres.database()
    name = url.rpartition("/")[2]
    run_sql(url, f"CREATE ROLE {name}_one LOGIN PASSWORD 'one' CONNECTION LIMIT 1")
    run_sql(url, f"GRANT ALL ON SCHEMA public TO {name}_one; ALTER DATABASE {name} OWNER TO {name}_one")
    run_sql(url, f"SET ROLE {name}_one; {_MAKE}")
    address = parse_url(url.replace("postgres@", f"{name}_one@"), {"password": "one"})
    with open_destination(address) as destination:
        assert Analysis(destination).run(2) == []
    assert fetch(url, _ANALYZED) == [(_TABLES,)]

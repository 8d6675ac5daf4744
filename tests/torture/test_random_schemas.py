"""Databases of random definitions and values leave, and come back as they were: every definition by pg_dump, every row
by its text.

MOVEOUT_SCHEMAS says how many (4); MOVEOUT_SEED repeats a run. MOVEOUT_VERSIONS=12,18 takes them from a server of that
version to one of that version (see ``scripts/postgres_versions.py``); a newer destination is compared by rows only.
"""

import os
import random
import sys

import psycopg
import pytest

from migrate.changes.remainder import BothSides
from migrate.restore.postgres.changes.definition_gaps import definition_gaps
from scripts.postgres_versions import find_postgres_of
from tests.exporters.postgres.databases import dump_bytes, export_database, fetch, run_sql
from tests.parquet import check_parquet
from tests.tools.bundles import differences, read_bundle, restore_from
from tests.torture.schemas.database import make_database
from tests.torture.schemas.objects import ROLES

pytestmark = pytest.mark.torture

SCHEMAS = int(os.environ.get("MOVEOUT_SCHEMAS", "4"))
_VERSIONS = os.environ.get("MOVEOUT_VERSIONS", "")
_RELATIONS = """
SELECT c.oid::regclass::text, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.relkind IN ('r', 'p', 'S') OR c.relkind = 'm' AND c.relispopulated) AND n.nspname !~ '^pg_'
  AND n.nspname <> 'information_schema' AND NOT c.relispartition ORDER BY 1
"""
_MORE = """
SELECT loid::text || ' ' || md5(string_agg(data, NULL ORDER BY pageno)) FROM pg_largeobject GROUP BY loid
UNION ALL SELECT oid::regclass::text || ' ' || relispopulated FROM pg_class WHERE relkind = 'm'
ORDER BY 1
"""
_MEMBERS = """
SELECT m.member::regrole::text, m.roleid::regrole::text, m.admin_option FROM pg_auth_members m
WHERE m.member::regrole::text LIKE '"random%'
"""
_STABLE_SINCE = "functions in index expression must be marked IMMUTABLE"
"""What a newer server says of an index over an interval's text: once it was taken for immutable."""


@pytest.fixture(scope="module")
def sides(servers, postgres, other_postgres):
    """The server of the source and that of the destination."""
    if not _VERSIONS:
        yield postgres, other_postgres
        return
    there, here = (int(word) for word in _VERSIONS.split(","))
    started = [servers.postgres(f"random-{n}", find_postgres_of(v)) for n, v in enumerate((there, here))]
    yield started
    for server in started:
        server.child.stop()


@pytest.fixture(scope="module")
def start():
    """What all seeds begin with. It is no name of a test: processes that share the tests would not agree on these."""
    drawn = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
    sys.stderr.write(f"MOVEOUT_SEED={drawn}\n")
    return drawn


def entries(url: str) -> list[list[bytes]]:
    """What pg_dump says, entry by entry: some, and grants, it puts in the order in which they were made."""
    parts = dump_bytes(url, "--schema-only").split(b"\n--\n-- ")
    return sorted(sorted(one.splitlines()) if b"Type: DEFAULT ACL" in one else [one] for one in parts)


def rows(url: str) -> dict[str, list[str]]:
    """The text of every row. Which partition one is in may differ: the hash of an enum does."""
    by_table = {}
    with psycopg.connect(url, client_encoding="UTF8") as connection:
        connection.execute("SET search_path = ''; SET row_security = off; SET timezone = 'UTC'")
        for name, kind in connection.execute(_RELATIONS).fetchall():
            if kind == "S":
                query = f"SELECT last_value || ' ' || is_called FROM {name}"
            else:
                query = (
                    f'SELECT t::text FROM {"ONLY " * (kind == "r")}{name} AS t ORDER BY t::text COLLATE "C"'
                )
            by_table[name] = [row[0] for row in connection.execute(query.encode())]
        by_table["more"] = [row[0] for row in connection.execute(_MORE)]
    return by_table


@pytest.fixture
def databases(sides):
    """An empty database on each side; with its roles it goes again."""
    urls = [server.database() for server in sides]
    yield urls
    for server, url in zip(sides, urls, strict=True):
        run_sql(server.url, f'DROP DATABASE "{url.rpartition("/")[2]}"')
        for role in ROLES:
            run_sql(server.url, f"DROP ROLE IF EXISTS {role}")


@pytest.mark.parametrize("number", range(SCHEMAS))
def test_what_is_made_at_random_comes_back(sides, databases, start, number, tmp_path):
    url, destination = databases
    made = make_database(url, f"{start}/{number}")
    assert made.taken > 2 * len(made.refused), made.refused
    outcome = export_database(url, tmp_path / "bundle")
    assert outcome.complete, (outcome.sources[0].reasons, outcome.sources[0].gaps)
    reader = read_bundle(tmp_path / "bundle")
    assert check_parquet(reader, [row for row in reader.catalog() if row.kind == "table"]) == []
    restored = restore_from(reader, "app", destination, workers=2)
    same_version = sides[0].bin_dir == sides[1].bin_dir
    refused = [one for one in restored.left_out if same_version or not one.endswith(_STABLE_SINCE)]
    assert (restored.findings, refused) == ((), [])
    assert rows(destination) == rows(url)
    assert restored.left_out or definition_gaps(BothSides(url, {}, destination, {}), (), None) == []
    assert set(fetch(destination, _MEMBERS)) <= set(fetch(url, _MEMBERS))
    if same_version:
        assert entries(destination) == entries(url)
    assert differences(reader, url) == []

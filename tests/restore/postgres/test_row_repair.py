"""What a repair of a PostgreSQL database raises where the server goes away."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from exporters.errors import SourceUnreachableError
from migrate.restore.postgres import destination
from migrate.restore.postgres.row_repair import open_repair
from tests.tools.waiting import eventually

END_WAITING = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'SELECT pg_try_advisory_lock%'
"""


def test_a_server_that_goes_away_while_a_repair_begins_cannot_be_reached(postgres):
    url = postgres.database()

    def begin():
        with open_repair(url, {}):
            pass

    with psycopg.connect(url, autocommit=True) as other, ThreadPoolExecutor(1) as threads:
        other.execute("SELECT pg_advisory_lock(%s)", (destination._LOCK,))
        begun = threads.submit(begin)
        eventually(lambda: other.execute(END_WAITING).fetchall())
        with pytest.raises(SourceUnreachableError):
            begun.result()

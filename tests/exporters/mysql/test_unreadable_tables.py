"""Tables that the account may not read whole are named, among others that it may."""

import secrets
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from exporters.mysql.catalog import read_tables
from exporters.mysql.connection import connect, parse_url
from exporters.mysql.sessions.snapshot_locks import unreadable_tables
from tests.exporters.mysql.databases import run_sql


@pytest.mark.parametrize("server", ["mariadb", pytest.param("mysql", marks=pytest.mark.torture)])
def test_a_table_with_a_column_that_the_account_may_not_read(request, server):
    url = request.getfixturevalue(server).database()
    user, database = f"u_{secrets.token_hex(4)}", urlsplit(url).path.strip("/")
    run_sql(
        url,
        f"CREATE TABLE whole (id INT); CREATE TABLE part (id INT, hidden INT); CREATE USER {user} IDENTIFIED BY 'x';"
        f" GRANT SELECT ON {database}.whole TO {user}; GRANT SELECT (id) ON {database}.part TO {user}",
    )
    with closing(connect(parse_url(url.replace("moveout@", f"{user}@"), {"password": "x"}))) as connection:
        unreadable = unreadable_tables(connection, read_tables(connection))
    assert unreadable == {"part": "the account may not read it"}

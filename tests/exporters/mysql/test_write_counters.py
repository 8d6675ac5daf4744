"""What the server says of writes to a table is another text after each, also where a foreign key writes."""

import pytest

from exporters.mysql.live_reader import MysqlLiveReader
from tests.exporters.mysql.databases import run_sql
from tests.tools.waiting import eventually

TABLES = """
CREATE TABLE parents (id INT PRIMARY KEY);
CREATE TABLE children (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE);
CREATE TABLE still (id INT PRIMARY KEY); INSERT INTO still VALUES (1);
INSERT INTO parents VALUES (1); INSERT INTO children VALUES (1, 1);
"""


@pytest.mark.parametrize("flavour", ["mariadb", pytest.param("mysql", marks=pytest.mark.torture)])
def test_a_write_changes_what_the_server_says(flavour, request):
    url = request.getfixturevalue(flavour).database()
    run_sql(url, TABLES)

    def counters():
        return MysqlLiveReader().write_states(url, secrets={})

    eventually(lambda: len(counters()) == 3)  # a table that was just written to is left out
    before = counters()
    run_sql(url, "DELETE FROM parents; ALTER TABLE still ADD COLUMN more INT")
    assert {name for name, text in before.items() if counters().get(name) == text} == set()
    eventually(lambda: len(counters()) == 3)
    after = counters()
    assert not before.items() & after.items()
    assert counters() == after

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

    def states():
        return MysqlLiveReader().write_states(url, secrets={})

    def last_writes():
        return {name: (state.identity, state.last_write) for name, state in states().items()}

    eventually(
        lambda: last_writes() == last_writes()
    )  # a write that was just now may be followed by another one
    before, counted = last_writes(), states()
    run_sql(url, "DELETE FROM parents; ALTER TABLE still ADD COLUMN more INT")
    assert not before.items() & last_writes().items()
    eventually(lambda: last_writes() == last_writes())
    after = last_writes()
    assert not before.items() & after.items()
    run_sql(
        url, "INSERT INTO parents VALUES (2), (3); UPDATE parents SET id = 4 WHERE id = 3; TRUNCATE still"
    )
    if (
        flavour == "mysql"
    ):  # what InnoDB's foreign keys do is not counted; from 9.6 on the server acts for them
        assert states()["", "parents"].rows == counted["", "parents"].rows + 1 + 3
        assert states()["", "still"].of_server == counted["", "still"].of_server + 2
    else:
        assert states()["", "still"].of_server == counted["", "still"].of_server + 1 + 3 + 2

"""A session of MySQL: the settings that only some servers know."""

from contextlib import closing

import pytest

from exporters.mysql import connection as of_mysql
from exporters.mysql.connection import Connection, connect, parse_url
from exporters.mysql.definitions.event_status import may_be_held

OPTIONAL = {
    "innodb_strict_mode": "0",
    "version_comment": "'ours'",
    "max_statement_time": "7",
    "unheard_of": "1",
}


def test_a_setting_that_the_server_refuses_does_not_keep_the_others_from_being_set(mariadb, monkeypatch):
    monkeypatch.setattr(of_mysql, "_OPTIONAL", OPTIONAL)
    monkeypatch.setattr(of_mysql, "_optional_names_by_server", {})
    with closing(connect(parse_url(mariadb.database()))) as connection:
        values = connection.rows("SELECT @@SESSION.innodb_strict_mode, @@SESSION.max_statement_time")
    assert [tuple(map(int, row)) for row in values] == [(0, 7)]


@pytest.mark.parametrize(
    ("text", "is_on"),
    [("OFF", False), ("0", False), (None, False), ("ON", True), ("1", True), ("NO_LOCK", True)],
)
def test_a_server_is_read_only_by_any_word_but_off(mariadb, monkeypatch, text, is_on):
    with closing(connect(parse_url(mariadb.database()))) as connection:
        monkeypatch.setattr(Connection, "variable", lambda *_: text)
        assert may_be_held(connection) is is_on

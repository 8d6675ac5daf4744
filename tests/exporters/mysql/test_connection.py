"""A session of MySQL: the settings that only some servers know."""

from contextlib import closing

from exporters.mysql import connection as of_mysql
from exporters.mysql.connection import connect, parse_url

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

"""What was made by a client of another charset: servers print parts of it in that charset, and parts in UTF-8."""

import pytest

from tests.exporters.mysql.databases import export_database, fetch, open_database
from tests.tools.bundles import read_bundle, restore_whole

CLIENTS = {"latin1": ("cp1252", "é"), "cp1251": ("cp1251", "ж")}
STATEMENTS = (
    "CREATE PROCEDURE `p{w}`(a ENUM('{w}')) COMMENT 'c{w}''s \\\\' SELECT '{w}'",
    "CREATE FUNCTION `f{w}`() RETURNS INT DETERMINISTIC COMMENT '{w}' RETURN LENGTH('{w}')",
    "CREATE EVENT `e{w}` ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01' DISABLE COMMENT '{w}' DO SELECT '{w}'",
    "CREATE TRIGGER `t{w}` BEFORE INSERT ON `t{w}` FOR EACH ROW SET @x = '{w}'",
    "CREATE VIEW `v{w}` AS SELECT '{w}' AS a",
)
VIEWS = ("SELECT HEX(a) FROM plain", "SELECT HEX(a) FROM three_bytes", "SELECT HEX(a), b FROM seven_bits")
QUERIES = (
    (
        "SELECT ROUTINE_NAME, ROUTINE_COMMENT, ROUTINE_DEFINITION FROM information_schema.ROUTINES"
        " WHERE ROUTINE_SCHEMA = DATABASE() ORDER BY 1"
    ),
    (
        "SELECT PARAMETER_NAME, DTD_IDENTIFIER FROM information_schema.PARAMETERS"
        " WHERE SPECIFIC_SCHEMA = DATABASE() ORDER BY 1, 2"
    ),
    (
        "SELECT EVENT_NAME, EVENT_COMMENT, EVENT_DEFINITION FROM information_schema.EVENTS"
        " WHERE EVENT_SCHEMA = DATABASE() ORDER BY 1"
    ),
    (
        "SELECT TABLE_NAME, CHARACTER_SET_CLIENT, VIEW_DEFINITION FROM information_schema.VIEWS"
        " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'seven_bits'"
    ),
    (
        "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE, ACTION_STATEMENT FROM information_schema.TRIGGERS"
        " WHERE TRIGGER_SCHEMA = DATABASE()"
    ),
)


def make(url: str, client: str) -> None:
    codec, word = CLIENTS[client]
    with open_database(url) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE `t{word}` (id INT PRIMARY KEY)")
        cursor.execute("CREATE VIEW plain AS SELECT _latin1 X'E4' AS a")
        cursor.execute("SET NAMES utf8mb3")
        cursor.execute("CREATE VIEW three_bytes AS SELECT CONCAT(_latin1 X'E4', 'é?') AS a")
        cursor.execute("SET NAMES ascii")
        cursor.execute("CREATE VIEW seven_bits AS SELECT _latin1 X'E4' AS a, '?' AS b")
        cursor.execute(f"SET NAMES {client}")
        for statement in STATEMENTS:
            cursor.execute(statement.format(w=word).encode(codec))


def test_an_event_comes_back_whose_definition_no_server_reads_in_its_mode(my_exported, other_mariadb):
    url, reader = my_exported(
        "SET NAMES latin1, sql_mode = 'HIGH_NOT_PRECEDENCE';"
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01' DISABLE COMMENT 'ü' DO SELECT NOT 1 BETWEEN 0 AND 2"
    )
    destination = other_mariadb.database()
    restore_whole(reader, "app", destination)
    query = (
        "SELECT EVENT_COMMENT, ON_COMPLETION, SQL_MODE, EVENT_DEFINITION FROM information_schema.EVENTS"
        " WHERE EVENT_SCHEMA = DATABASE()"
    )
    assert fetch(destination, query) == fetch(url, query)


def comes_back(server, other, client: str, location) -> None:
    url, destination = server.database(), other.database()
    make(url, client)
    assert export_database(url, location).complete
    restore_whole(read_bundle(location), "app", destination)
    for query in (*QUERIES, f"SELECT HEX(a) FROM `v{CLIENTS[client][1]}`", *VIEWS):
        assert fetch(destination, query) == fetch(url, query)


@pytest.mark.parametrize("client", CLIENTS)
def test_names_comments_and_bodies_come_back(mariadb, other_mariadb, client, tmp_path):
    comes_back(mariadb, other_mariadb, client, tmp_path / "bundle")


@pytest.mark.torture
@pytest.mark.parametrize("client", CLIENTS)
def test_names_comments_and_bodies_come_back_on_mysql(mysql, other_mysql, client, tmp_path):
    comes_back(mysql, other_mysql, client, tmp_path / "bundle")

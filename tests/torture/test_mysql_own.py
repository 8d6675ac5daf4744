"""What only MySQL has: exact decimals within JSON, keys that hide, libraries, spatial reference systems, tablespaces,
default roles. What cannot come back is named.
"""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from migrate.errors import NotEmptyError
from migrate.storage.registry import open_location
from tests.exporters.mysql.databases import export_database, fetch, run_sql
from tests.tools.bundles import differences, read_bundle, restore_from, restore_whole
from tests.tools.mysql_settings import global_settings, kept_settings

pytestmark = pytest.mark.torture

SYSTEM = 990_017
SCRIPT = Path(__file__).with_name("mysql_own.sql")


@pytest.fixture
def databases(mysql, other_mysql):
    """The source with everything, and an empty destination; both servers are left as they were."""
    url, destination = mysql.database("own"), other_mysql.database("own_new")
    try:
        with global_settings(mysql.url, show_gipk_in_create_table_and_information_schema=0):
            run_sql(url, SCRIPT.read_text())
            yield url, destination
    finally:
        run_sql(mysql.url, "DROP DATABASE own; DROP TABLESPACE apart")
        run_sql(other_mysql.url, "DROP DATABASE own_new")
        for server in (mysql, other_mysql):
            run_sql(server.url, f"DROP SPATIAL REFERENCE SYSTEM IF EXISTS {SYSTEM}")


def test_what_only_mysql_has_comes_back_or_is_named(databases, tmp_path):
    source, destination = databases
    run_sql(source, "ANALYZE TABLE hidden UPDATE HISTOGRAM ON a; ALTER DATABASE own READ ONLY = 1")
    assert export_database(source, tmp_path / "bundle").complete
    run_sql(source, "ALTER DATABASE own READ ONLY = 0")
    reader = read_bundle(tmp_path / "bundle")
    assert {("`hidden`", "statistics"), ("database", "read only")} <= {
        (loss.item, loss.property) for _, loss in reader.losses()
    }
    assert {
        loss.item: loss.reason for _, loss in reader.losses() if loss.property == "types within JSON"
    } == {
        "`priced`.`j`": "DATETIME, DECIMAL, UNSIGNED INTEGER: its text does not show them; they come back as the"
        " numbers and strings that they print as"
    }
    restore_whole(reader, "app", destination, workers=2, report=open_location(str(tmp_path / "kept")))
    losses = pq.read_table(tmp_path / "kept/app/losses.parquet").to_pylist()
    assert [(loss["item"], loss["property"]) for loss in losses] == [("table `kept_apart`", "location")]
    assert differences(reader, destination) == []
    for query in (
        "SELECT my_row_id, a FROM hidden ORDER BY 1",
        "SELECT id, CAST(j AS CHAR), JSON_TYPE(j), JSON_TYPE(j->'$.l[1]'), JSON_TYPE(j->'$[0]') FROM priced",
        "SELECT ROUTINE_NAME, ROUTINE_COMMENT FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE()",
        "SELECT LIBRARY_NAME, LIBRARY_COMMENT FROM information_schema.LIBRARIES WHERE LIBRARY_SCHEMA = DATABASE()",
        "SELECT EVENT_NAME, EVENT_COMMENT FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()",
        f"SELECT * FROM information_schema.ST_SPATIAL_REFERENCE_SYSTEMS WHERE SRS_ID = {SYSTEM}",
        "SELECT * FROM made",
    ):
        assert fetch(destination, query) == fetch(source, query)
    assert fetch(destination, "SELECT JSON_TYPE(JSON_EXTRACT(j, '$.l[1]')) FROM priced WHERE id = 1") == [
        ("DECIMAL",)
    ]


def test_what_the_destination_has_of_the_same_name_is_told(databases, other_mysql, tmp_path):
    source, destination = databases
    assert export_database(source, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    run_sql(destination, "CREATE LIBRARY sums LANGUAGE JAVASCRIPT AS $$ export function other() {} $$")
    with pytest.raises(NotEmptyError, match="has a library `sums` already"):
        restore_from(reader, "app", destination, merge=True)
    (system,) = [line for line in SCRIPT.read_text().splitlines() if line.startswith("CREATE SPATIAL")]
    run_sql(destination, system.replace("our", "another"))
    outcome = restore_from(reader, "app", destination, only=["spots"])
    assert (
        f"spatial reference system {SYSTEM}: the destination has another one of this number" in outcome.notes
    )
    assert fetch(destination, "SELECT ST_SRID(g) FROM spots") == [(SYSTEM,)]


def test_default_roles_come_back(mysql, other_mysql, tmp_path):
    url, destination = mysql.database("roles_old"), other_mysql.database("roles_new")
    names = "'reader'@'%', 'writer`s'@'%', 'member'@'localhost'"
    try:
        run_sql(
            url,
            "CREATE TABLE t (id INT PRIMARY KEY); CREATE ROLE 'reader', 'writer`s';"
            "CREATE USER 'member'@'localhost' IDENTIFIED BY 'x';"
            "GRANT SELECT ON roles_old.* TO 'reader'; GRANT INSERT ON roles_old.* TO 'writer`s';"
            "GRANT 'reader', 'writer`s' TO 'member'@'localhost'; SET DEFAULT ROLE ALL TO 'member'@'localhost'",
        )
        assert export_database(url, tmp_path / "bundle").complete
        restore_from(read_bundle(tmp_path / "bundle"), "app", destination)
        query = "SELECT * FROM mysql.default_roles ORDER BY DEFAULT_ROLE_USER"
        assert fetch(destination, query) == fetch(url, query)
        assert len(fetch(destination, query)) == 2
    finally:
        for server in (mysql, other_mysql):
            run_sql(
                server.url,
                f"DROP USER IF EXISTS {names}; DROP DATABASE IF EXISTS roles_old; DROP DATABASE IF EXISTS roles_new",
            )


def test_logins_and_what_is_taken_from_accounts_come_back(mysql, other_mysql, tmp_path):
    url, destination = mysql.database("logins_old"), other_mysql.database("logins_new")
    names = "'limited'@'%', 'partly'@'%'"
    switch = "SET GLOBAL partial_revokes = ON"
    with kept_settings(mysql.url, other_mysql.url, names=["partial_revokes"]):
        try:
            run_sql(
                url,
                "CREATE TABLE t (id INT PRIMARY KEY); CREATE USER 'limited'@'%' IDENTIFIED BY 'x'"
                " REQUIRE SUBJECT '/CN=it''s' AND ISSUER '/CN=ca' WITH MAX_QUERIES_PER_HOUR 5 MAX_USER_CONNECTIONS 3"
                " PASSWORD HISTORY 3;"
                f"GRANT SELECT ON logins_old.* TO 'limited'@'%'; {switch}; CREATE USER 'partly'@'%';"
                "GRANT SELECT, INSERT ON *.* TO 'partly'@'%'; REVOKE INSERT ON logins_old.* FROM 'partly'@'%'",
            )
            assert export_database(url, tmp_path / "bundle").complete
            losses = pq.read_table(tmp_path / "bundle/data/losses.parquet").to_pylist()
            assert [one["item"] for one in losses if one["property"].startswith("expiry")] == [
                "account 'limited'@'%'"
            ]
            reader = read_bundle(tmp_path / "bundle")
            outcome = restore_from(reader, "app", destination)
            assert any("has no partial revokes" in note for note in outcome.notes)
            assert fetch(destination, "SHOW GRANTS FOR 'partly'@'%'") == [
                ("GRANT USAGE ON *.* TO `partly`@`%`",)
            ]
            query = (
                "SELECT ssl_type, x509_subject, x509_issuer, max_questions, max_user_connections FROM mysql.user"
                " WHERE User = 'limited'"
            )
            assert fetch(destination, query) == fetch(url, query)
            run_sql(destination, f"DROP USER {names}; DROP TABLE t; {switch}")
            restore_from(reader, "app", destination)
            assert fetch(destination, "SHOW GRANTS FOR 'partly'@'%'") == [
                ("GRANT SELECT, INSERT ON *.* TO `partly`@`%`",),
                ("REVOKE INSERT ON `logins_new`.* FROM `partly`@`%`",),
            ]
        finally:
            for server in (mysql, other_mysql):
                run_sql(server.url, f"DROP USER IF EXISTS {names}")
                run_sql(server.url, "DROP DATABASE IF EXISTS logins_old; DROP DATABASE IF EXISTS logins_new")


def test_decimals_in_documents_of_many_megabytes_come_back(mysql, other_mysql, tmp_path):
    url, destination = mysql.database("long_old"), other_mysql.database("long_new")
    with global_settings(mysql.url, other_mysql.url, max_allowed_packet=2**27):
        try:
            run_sql(
                url,
                "CREATE TABLE t (id INT PRIMARY KEY, j JSON, k JSON, b LONGBLOB); INSERT INTO t VALUES"
                """ (1, JSON_OBJECT('it''s "q"', JSON_ARRAY(1.50, 2.5e0), 'long', REPEAT('a1.50,"', 2000000),"""
                " 'end', 9.90, 'd', CAST('2024-01-01' AS DATE)), JSON_ARRAY(1.50), 'x'),"
                " (2, JSON_ARRAY(7.70), JSON_ARRAY(1.50), REPEAT('z', 9000000))",
            )
            assert export_database(url, tmp_path / "bundle").complete
            reader = read_bundle(tmp_path / "bundle")
            assert ("`t`.`j`", "types within JSON") in {
                (one.item, one.property) for _, one in reader.losses()
            }
            outcome = restore_from(reader, "app", destination)
            assert outcome.findings == ()
            paths = ("j->'$.end'", "j->'$.*[0]'", "j->'$[0]'", "k->'$[0]'")
            types = f"SELECT {', '.join(f'JSON_TYPE({path})' for path in paths)} FROM t"
            assert fetch(destination, types) == fetch(url, types)
            assert [row[0] for row in fetch(destination, types)] == ["DECIMAL", None]
        finally:
            for server, name in ((mysql, "long_old"), (other_mysql, "long_new")):
                run_sql(server.url, f"DROP DATABASE {name}")


EXPRESSIONS = r"""CREATE TABLE t (id INT PRIMARY KEY, a TEXT DEFAULT ('x\\y''z"😀'),
  b VARCHAR(9) DEFAULT (_latin1 X'E4F6'),
  c VARCHAR(99) AS (CONCAT(b, _latin1 X'E4', '日本😀?''\\')) STORED, f VARCHAR(9) DEFAULT (_cp1251 X'C4'),
  g VARCHAR(9) DEFAULT (_utf16 X'D83DDE00'), CHECK (a <> _latin1 X'E4F6'),
  `q'` VARCHAR(9) CHARACTER SET latin1, CHECK (`q'` <> _latin1 X'E4'), CONSTRAINT `ü` CHECK (b <> 'ü日😀''\\'),
  KEY k ((CONCAT(b, '😀'))))"""


def test_expressions_that_show_create_prints_with_question_marks_come_back(mysql, other_mysql, tmp_path):
    url, destination = mysql.database("marks_old"), other_mysql.database("marks_new")
    try:
        run_sql(url, EXPRESSIONS)
        assert "????" in fetch(url, "SHOW CREATE TABLE t")[0][1]
        assert export_database(url, tmp_path / "bundle").complete
        restore_whole(read_bundle(tmp_path / "bundle"), "app", destination)
        of_this = "_SCHEMA = DATABASE() ORDER BY 1"
        for query in (
            "SELECT COLUMN_NAME, COLUMN_DEFAULT, GENERATION_EXPRESSION FROM information_schema.COLUMNS WHERE TABLE",
            "SELECT CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS WHERE CONSTRAINT",
            "SELECT INDEX_NAME, EXPRESSION FROM information_schema.STATISTICS WHERE TABLE",
        ):
            assert fetch(destination, query + of_this) == fetch(url, query + of_this)
        for one in (url, destination):
            run_sql(one, "INSERT INTO t (id) VALUES (1)")
        assert fetch(destination, "SELECT * FROM t") == fetch(url, "SELECT * FROM t")
    finally:
        run_sql(mysql.url, "DROP DATABASE marks_old")
        run_sql(other_mysql.url, "DROP DATABASE marks_new")


def test_labels_that_no_definition_prints_are_read_from_rows_or_named(mysql, other_mysql, tmp_path):
    url, destination = mysql.database("labels_old"), other_mysql.database("labels_new")
    try:
        run_sql(
            url,
            "CREATE TABLE t (id INT PRIMARY KEY, c SET('😀','é'), d ENUM('x','👍','👎?'), f ENUM('🤷','b'));"
            "INSERT INTO t VALUES (1, 1, 2, 2), (2, 3, 3, NULL)",
        )
        assert export_database(url, tmp_path / "bundle").complete
        reader = read_bundle(tmp_path / "bundle")
        assert [loss.item for _, loss in reader.losses() if loss.property == "labels"] == ["`t`.`f`"]
        outcome = restore_from(reader, "app", destination)
        assert outcome.findings == ()
        assert fetch(destination, "SELECT * FROM t") == [(1, "😀", "👍", "b"), (2, "😀,é", "👎?", None)]
    finally:
        run_sql(mysql.url, "DROP DATABASE labels_old")
        run_sql(other_mysql.url, "DROP DATABASE labels_new")


def test_a_literal_beside_bytes_comes_back_as_a_view_has_it(mysql, other_mysql, tmp_path):
    url, destination = mysql.database(), other_mysql.database()
    run_sql(
        url,
        "CREATE TABLE t (b BLOB); INSERT INTO t VALUES ('x');"
        "CREATE VIEW `v'ü` AS SELECT CONCAT(b, 'ü…''') AS a, CONCAT('ü', 'Ã¼') AS c FROM t",
    )
    assert export_database(url, tmp_path / "bundle").complete
    restore_whole(read_bundle(tmp_path / "bundle"), "app", destination)
    for query in ("SELECT HEX(a), HEX(c) FROM `v'ü`", "SHOW CREATE VIEW `v'ü`"):
        assert fetch(destination, query) == fetch(url, query)

"""What MySQL writes differently from MariaDB is written as the other one wants it, and what it has not is named."""

import re

import pytest

from migrate.restore.mysql.definitions.dialect import TO_MARIADB, TO_MYSQL, Adapter, adapter_for, bracketed
from tests.exporters.mysql.databases import fetch, run_sql, session
from tests.tools.bundles import restore_from

OF_MYSQL = """CREATE TABLE `t` (
  `id` int unsigned NOT NULL AUTO_INCREMENT COMMENT 'not json, /*!80023 INVISIBLE */',
  `hid` int DEFAULT '7' /*!80023 INVISIBLE */,
  `j` json DEFAULT NULL,
  `d` varchar(20) COLLATE utf8mb4_0900_as_cs DEFAULT (uuid()),
  `g` geomcollection NOT NULL /*!80003 SRID 4326 */,
  `v` int GENERATED ALWAYS AS ((`hid` * 2)) VIRTUAL,
  PRIMARY KEY (`id`),
  KEY `plain` (`d`(5)),
  KEY `over` ((`hid` + 1)),
  KEY `off` (`hid`) /*!80000 INVISIBLE */,
  CONSTRAINT `loose` CHECK ((`hid` > 5)) /*!80016 NOT ENFORCED */,
  CONSTRAINT `strict` CHECK ((`hid` > 0))
) ENGINE=InnoDB AUTO_INCREMENT=9 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci"""

OF_MARIADB = """CREATE TABLE `t` (
  `id` uuid NOT NULL DEFAULT uuid(),
  `a` inet6 DEFAULT NULL,
  `n` int(11) DEFAULT nextval(`s`),
  `b` text DEFAULT 'it''s, a text' COMMENT 'uuid',
  `c` varchar(9) DEFAULT 'x' INVISIBLE,
  `at` timestamp NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
  `e` varchar(20) DEFAULT concat('a',lpad(1,2,')')) COLLATE utf8mb4_uca1400_as_cs,
  `s` timestamp(6) GENERATED ALWAYS AS ROW START,
  `f` timestamp(6) GENERATED ALWAYS AS ROW END,
  PRIMARY KEY (`id`),
  UNIQUE KEY `whole` (`b`) USING HASH,
  KEY `off` (`n`) IGNORED,
  PERIOD FOR SYSTEM_TIME (`s`, `f`)
) ENGINE=Aria DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_nopad_ci PAGE_CHECKSUM=1 WITH SYSTEM VERSIONING
 PARTITION BY SYSTEM_TIME
(PARTITION `h` HISTORY ENGINE = Aria,
 PARTITION `c` CURRENT ENGINE = Aria)"""

FOR_MYSQL = """CREATE TABLE `t` (
  `id` char(36) CHARACTER SET ascii NOT NULL DEFAULT (uuid()),
  `a` varchar(39) CHARACTER SET ascii DEFAULT NULL,
  `n` int(11),
  `b` text DEFAULT ('it''s, a text') COMMENT 'uuid',
  `c` varchar(9) DEFAULT 'x' INVISIBLE,
  `at` timestamp NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
  `e` varchar(20) DEFAULT (concat('a',lpad(1,2,')'))) COLLATE utf8mb4_0900_as_cs,
  PRIMARY KEY (`id`),
  KEY `off` (`n`) INVISIBLE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci"""


def table(sql: str) -> dict:
    return {"kind": "table", "name": "t", "sql": sql}


def losses(adapter: Adapter) -> set[str]:
    return {loss.property for loss in adapter.losses}


def test_a_table_of_mysql_is_made_on_mariadb(mariadb):
    url = mariadb.database()
    connection = session(url)
    adapter = adapter_for("MySQL 8.4.3", connection)
    connection.close()
    (one,) = adapter.adapt([table(OF_MYSQL)])
    run_sql(url, one["sql"])
    made = fetch(url, "SHOW CREATE TABLE t")[0][1]
    knows = "utf8mb4_0900_as_cs" in adapter.collations  # MariaDB 11.4 and newer
    of_column, of_table = (
        ("0900_as_cs", "0900_ai_ci") if knows else ("uca1400_nopad_as_cs", "uca1400_nopad_ai_ci")
    )
    assert re.search("`hid` int.11. (INVISIBLE DEFAULT 7|DEFAULT 7 INVISIBLE)", made)
    for words in (
        "'not json, /*!80023 INVISIBLE */'",
        "CHECK (json_valid(`j`))",
        f"COLLATE utf8mb4_{of_column} DEFAULT uuid()",
        "geometrycollection NOT NULL",
        "KEY `off` (`hid`) IGNORED",
        "CONSTRAINT `strict` CHECK (`hid` > 0)",
        "AUTO_INCREMENT=9",
        f"COLLATE=utf8mb4_{of_table}",
    ):
        assert words in made
    assert "over" not in made
    assert "loose" not in made
    others = set() if knows else {"collation utf8mb4_0900_as_cs", "collation utf8mb4_0900_ai_ci"}
    assert losses(adapter) == {"SRID", "type json", "key", "constraint"} | others


def test_parsers_compression_and_storage_of_mysql_are_left_out_by_name(mariadb):
    url = mariadb.database()
    connection = session(url)
    adapter = adapter_for("MySQL 9.7.0", connection)
    connection.close()
    sql = (
        "CREATE TABLE `t` (\n  `x` int /*!50606 STORAGE DISK */ /*!50606 COLUMN_FORMAT FIXED */ DEFAULT NULL,\n"
        "  `e` text COMMENT ' COMPRESSION=''x''',\n  FULLTEXT KEY `ft` (`e`) /*!50100 WITH PARSER `ngram` */ \n"
        ") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMPRESSION='zlib'"
    )
    (one,) = adapter.adapt([table(sql)])
    run_sql(url, one["sql"])
    made = fetch(url, "SHOW CREATE TABLE t")[0][1]
    assert "FULLTEXT KEY `ft` (`e`)\n" in made
    assert "' COMPRESSION=''x'''" in made
    assert losses(adapter) == {"parser", "compression", "storage"}


def test_a_table_of_mariadb_is_written_for_mysql():
    known = frozenset({"utf8mb4_0900_ai_ci", "utf8mb4_0900_as_cs"})
    adapter = Adapter(TO_MYSQL, known)
    sequence = {"kind": "sequence", "name": "s", "sql": "CREATE SEQUENCE `s`", "next": 1}
    adapted = adapter.adapt([sequence, table(OF_MARIADB)])
    assert adapted == [table(FOR_MYSQL)]
    assert losses(adapter) == {
        *(
            "definition",
            "type uuid",
            "type inet6",
            "default",
            "key",
            "period",
            "versioning",
            "partitions",
            "engine",
        ),
        *("table option", "collation utf8mb4_general_nopad_ci", "collation utf8mb4_uca1400_as_cs"),
    }


def test_modes_and_collations_of_a_session_are_those_that_the_other_one_knows():
    adapter = Adapter(TO_MYSQL, frozenset({"utf8mb4_0900_ai_ci"}))
    event = {
        "kind": "event",
        "name": "e",
        "sql": "CREATE EVENT `e` DO SELECT 'COLLATE utf8mb4_uca1400_ai_ci'",
        "sql_mode": "STRICT_TRANS_TABLES,NO_AUTO_CREATE_USER",
        "connection": "utf8mb4_uca1400_ai_ci",
    }
    (adapted,) = adapter.adapt([event])
    assert adapted == {**event, "sql_mode": "STRICT_TRANS_TABLES", "connection": "utf8mb4_0900_ai_ci"}


@pytest.mark.parametrize("server", ["MariaDB 10.6.1-MariaDB", "", "something else"])
def test_definitions_of_the_same_flavour_stay_as_they_are(mariadb, server):
    connection = session(mariadb.url)
    assert adapter_for(server, connection) is None
    connection.close()


def test_what_needs_no_change_is_the_same_text():
    assert bracketed(OF_MYSQL) == OF_MYSQL
    adapter = Adapter(TO_MARIADB, frozenset({"latin1_swedish_ci"}))
    plain = table("CREATE TABLE `t` (\n  `a` int,\n  KEY (`a`)\n) ENGINE=InnoDB COLLATE=latin1_swedish_ci")
    assert adapter.adapt([plain]) == [plain]
    assert adapter.losses == []


def test_a_view_whose_table_is_gone_is_left_out_by_name(my_exported, other_mariadb):
    _, reader = my_exported(
        "CREATE TABLE t (a INT); CREATE TABLE gone (a INT); CREATE VIEW broken AS SELECT * FROM gone;"
        "CREATE VIEW whole AS SELECT * FROM t; DROP TABLE gone"
    )
    destination = other_mariadb.database()
    outcome = restore_from(reader, "app", destination)
    assert outcome.findings == ()
    assert [line.partition(":")[0] for line in outcome.left_out] == ["view `broken`"]
    assert {row[0] for row in fetch(destination, "SHOW TABLES")} == {"t", "whole", "moveout_restore_left_out"}

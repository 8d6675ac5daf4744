"""Routines, triggers, events and views come back byte for byte, whatever charset their client spoke."""

import pytest

from tests.exporters.mysql.databases import export_database, open_database
from tests.tools.bundles import read_bundle, restore_from

EMOJI = "\N{GRINNING FACE}".encode()
BYTES = b", _utf8mb4 '%b', _binary '\x89\xff\x81'" % EMOJI
CLIENTS = {
    "utf8mb3": ("\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), BYTES),
    "utf8mb4": ("\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), BYTES),
    "latin1": (b"\xe9", BYTES),
    "koi8r": (b"\xd1", BYTES),
    "cp1251": (b"\xff", BYTES),
    "ascii": (b"e", BYTES),
    "sjis": (b"\x95\\", b", _latin1 '\xe9 ', '\\t'"),
    "gbk": (b"\xb1\xed", b", _latin1 '\xe9 ', '\\t'"),
    "latin1 in UTF-8": ("\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), BYTES),
    "koi8r in UTF-8": ("\N{CYRILLIC SMALL LETTER ZHE}".encode(), BYTES),
}
"""By the client's charset: a word in it, and literals that are not. Clients that send UTF-8 call it otherwise."""
OBJECTS = (
    b"CREATE PROCEDURE `p_%b`(IN `x%b` INT) COMMENT 'c%b' BEGIN SELECT '%b', '%b'%b; END",
    b"CREATE FUNCTION `f_%b`(`x%b` INT) RETURNS VARBINARY(99) DETERMINISTIC COMMENT 'c%b%b' RETURN CONCAT('%b'%b)",
    b"CREATE FUNCTION `f_of_%b`(`x%b` ENUM('%b')) RETURNS ENUM('%b') DETERMINISTIC COMMENT '%b' RETURN CONCAT('b'%b)",
    b"CREATE TRIGGER `t_%b` BEFORE INSERT ON t FOR EACH ROW SET NEW.b = CONCAT('%b', '%b', '%b', '%b'%b)",
    b"CREATE EVENT `e_%b` ON SCHEDULE EVERY 1 DAY DISABLE COMMENT 'c%b' DO SELECT '%b', '%b', '%b'%b",
    b"CREATE VIEW `v_%b` AS SELECT '%b' AS `a%b`, '%b' AS b, '%b' AS c%b",
)
STORED = """
SELECT type, name, HEX(param_list), HEX(returns), HEX(body), HEX(comment), character_set_client, collation_connection
FROM mysql.proc WHERE db = DATABASE() ORDER BY 1, 2;
SELECT name, HEX(body), HEX(comment), character_set_client FROM mysql.event WHERE db = DATABASE() ORDER BY 1;
SELECT TRIGGER_NAME, HEX(ACTION_STATEMENT), CHARACTER_SET_CLIENT FROM information_schema.TRIGGERS
WHERE TRIGGER_SCHEMA = DATABASE() ORDER BY 1;
SELECT TABLE_NAME, HEX(VIEW_DEFINITION), CHARACTER_SET_CLIENT FROM information_schema.VIEWS
WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1
"""
OF_MYSQL = """
SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() ORDER BY 1;
SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE() ORDER BY 1;
SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() ORDER BY 1;
SELECT TABLE_NAME, HEX(VIEW_DEFINITION), CHARACTER_SET_CLIENT FROM information_schema.VIEWS
WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1
"""


def make(url: str) -> None:
    with open_database(url) as connection:
        connection.query("CREATE TABLE t (a INT, b VARBINARY(99))")
        for client, (word, literals) in CLIENTS.items():
            connection.query(f"SET NAMES {client.split()[0]}")
            for sql in OBJECTS:
                name = client.encode() + word
                connection.query(sql % (name, word, word, word, word, literals))


def stored(url: str, queries: str) -> list[list[tuple]]:
    """What the server keeps of each object, and what it prints of it, as bytes."""
    with open_database(url) as connection, connection.cursor() as cursor:
        found = []
        for query in queries.split(";"):
            cursor.execute(query)
            found.append(list(cursor.fetchall()))
        connection.encoding = "latin-1"
        cursor.execute("SET character_set_results = NULL")
        names = [("TRIGGER", str(row[0])) for row in found[2]] + [("VIEW", str(row[0])) for row in found[3]]
        names += [("EVENT", str(row[0])) for row in found[1]]
        names += [("PROCEDURE" if name.startswith("p_") else "FUNCTION", name) for name in names_of(found[0])]
        for kind, name in names:
            cursor.execute(f"SHOW CREATE {kind} `{name}`".encode())
            found.append([value for value in cursor.fetchone() if isinstance(value, str)])
    return found


def names_of(routines: list[tuple]) -> list[str]:
    return [next(str(value) for value in row if str(value)[1:2] == "_") for row in routines]


def check(source: str, destination: str, location) -> None:
    make(source)
    exported = export_database(source, location)
    assert exported.complete, list(read_bundle(location).gaps())
    outcome = restore_from(read_bundle(location), "app", destination)
    assert (outcome.findings, outcome.left_out, outcome.notes) == ((), (), ())


def test_every_byte_of_a_definition_comes_back(mariadb, other_mariadb, tmp_path):
    source, destination = mariadb.database(), other_mariadb.database()
    check(source, destination, tmp_path / "bundle")
    assert stored(destination, STORED) == stored(source, STORED)
    assert all(row[4] for row in stored(destination, STORED)[0])


@pytest.mark.torture
def test_every_byte_of_a_definition_comes_back_to_mysql(mysql, other_mysql, tmp_path, monkeypatch):
    source, destination = mysql.database(), other_mysql.database()
    for client in ("gbk", "sjis", "ascii"):  # MySQL cannot read its own triggers or views of these
        monkeypatch.delitem(CLIENTS, client)
    check(source, destination, tmp_path / "bundle")
    assert stored(destination, OF_MYSQL) == stored(source, OF_MYSQL)

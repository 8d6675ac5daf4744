"""Things that applications do, each with tables of its own: what tools bring of them is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that applications do. ``before`` makes its tables, ``turn`` is done again and again with a number ``n``
    in it, ``check`` has the same answer on both sides where it has arrived. PostgreSQL takes statements of a turn that
    are separated by semicolons at once.
    """

    name: str
    before: Sequence[str]
    turn: Sequence[str]
    check: str


POSTGRES_THINGS = (
    Thing(
        "rows with a key, keys that change",
        ("CREATE TABLE keyed (id int PRIMARY KEY, v text)",),
        (
            "INSERT INTO keyed VALUES ({n}, 'a') ON CONFLICT DO NOTHING",
            "UPDATE keyed SET id = id + 1000 WHERE id = {n} - 2",
            "DELETE FROM keyed WHERE id % 7 = 0",
        ),
        "SELECT * FROM keyed ORDER BY 1",
    ),
    Thing(
        "equal rows, REPLICA IDENTITY FULL",
        (
            "CREATE TABLE whole (v int)",
            "ALTER TABLE whole REPLICA IDENTITY FULL",
        ),
        (
            "INSERT INTO whole VALUES ({n} % 3), ({n} % 3)",
            "DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole)",
        ),
        "SELECT * FROM whole ORDER BY 1",
    ),
    Thing(
        "a table without a key",
        ("CREATE TABLE keyless (v int)",),
        (
            "INSERT INTO keyless VALUES ({n})",
            "UPDATE keyless SET v = v + 1 WHERE v % 5 = 0",
        ),
        "SELECT * FROM keyless ORDER BY 1",
    ),
    Thing(
        "savepoints, rollbacks, two-phase commits",
        ("CREATE TABLE phases (id int PRIMARY KEY)",),
        (
            (
                "BEGIN; INSERT INTO phases VALUES ({n}); SAVEPOINT a; INSERT INTO phases VALUES ({n} + 5000); "
                "ROLLBACK TO a; PREPARE TRANSACTION 'two'"
            ),
            "COMMIT PREPARED 'two'",
            "BEGIN; INSERT INTO phases VALUES ({n} + 9000); ROLLBACK",
        ),
        "SELECT * FROM phases ORDER BY 1",
    ),
    Thing(
        "TRUNCATE",
        ("CREATE TABLE emptied (id int PRIMARY KEY)",),
        (
            "TRUNCATE emptied",
            "INSERT INTO emptied VALUES ({n})",
        ),
        "SELECT * FROM emptied",
    ),
    Thing(
        "triggers and cascades, each once",
        (
            "CREATE TABLE parent (id int PRIMARY KEY)",
            "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE)",
            "CREATE TABLE audit (n serial PRIMARY KEY)",
            (
                "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.audit DEFAULT "
                "VALUES; RETURN NULL; END'"
            ),
            "CREATE TRIGGER noted AFTER INSERT ON child FOR EACH ROW EXECUTE FUNCTION noted()",
        ),
        (
            "INSERT INTO parent VALUES ({n})",
            "INSERT INTO child VALUES ({n}, {n})",
            "DELETE FROM parent WHERE id = {n} - 3",
        ),
        "SELECT count(*), (SELECT count(*) FROM child) FROM audit",
    ),
    Thing(
        "generated columns",
        ("CREATE TABLE doubled (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)",),
        (
            "INSERT INTO doubled VALUES ({n})",
            "UPDATE doubled SET id = -id WHERE id = {n} - 1",
        ),
        "SELECT * FROM doubled ORDER BY 1",
    ),
    Thing(
        "rows that move between partitions",
        (
            "CREATE TABLE parts (id int, place int, PRIMARY KEY (id, place)) PARTITION BY LIST (place)",
            "CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0)",
            "CREATE TABLE parts_1 PARTITION OF parts DEFAULT",
        ),
        (
            "INSERT INTO parts VALUES ({n}, 0)",
            "UPDATE parts SET place = 1 WHERE id = {n} - 1",
        ),
        "SELECT *, tableoid::regclass::text FROM parts ORDER BY 1",
    ),
    Thing(
        "large values that an update leaves alone",
        (
            "CREATE TABLE long (id int PRIMARY KEY, v int, text text)",
            "ALTER TABLE long ALTER text SET STORAGE EXTERNAL",
        ),
        (
            "INSERT INTO long VALUES ({n}, 0, repeat(md5('{n}'), 500))",
            "UPDATE long SET v = v + 1 WHERE id <= {n}",
        ),
        "SELECT id, v, md5(text) FROM long ORDER BY 1",
    ),
    Thing(
        "numbers of more than six digits",
        ("CREATE TABLE numbers (id int PRIMARY KEY, price numeric, share double precision)",),
        ("INSERT INTO numbers VALUES ({n} + 1234000, {n} + 12345.6789, {n} / 1234567.0)",),
        "SELECT * FROM numbers ORDER BY 1",
    ),
    Thing(
        "sequences",
        ("CREATE SEQUENCE counter",),
        ("SELECT nextval('counter')",),
        "SELECT last_value FROM counter",
    ),
    Thing(
        "large objects",
        ("SELECT lo_create(4711)",),
        ("SELECT lo_put(4711, {n}, 'x')",),
        "SELECT md5(lo_get(4711))",
    ),
    Thing(
        "materialized views",
        (
            "CREATE TABLE shown (id int PRIMARY KEY)",
            "CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM shown",
        ),
        (
            "INSERT INTO shown VALUES ({n})",
            "REFRESH MATERIALIZED VIEW seen",
        ),
        "SELECT * FROM seen",
    ),
)
MARIADB_THINGS = (
    Thing(
        "rows with a key, keys that change",
        ("CREATE TABLE keyed (id int PRIMARY KEY, v text)",),
        (
            "INSERT IGNORE INTO keyed VALUES ({n}, 'a')",
            "UPDATE keyed SET id = id + 1000 WHERE id = {n} - 2",
            "REPLACE INTO keyed VALUES ({n} - 1, 'b')",
            "DELETE FROM keyed WHERE id % 7 = 0",
        ),
        "SELECT * FROM keyed ORDER BY 1",
    ),
    Thing(
        "a table without a key",
        ("CREATE TABLE keyless (v int)",),
        (
            "INSERT INTO keyless VALUES ({n} % 3), ({n} % 3)",
            "UPDATE keyless SET v = v + 1 WHERE v % 5 = 0",
            "DELETE FROM keyless LIMIT 1",
        ),
        "SELECT * FROM keyless ORDER BY 1",
    ),
    Thing(
        "savepoints, rollbacks",
        ("CREATE TABLE phases (id int PRIMARY KEY)",),
        (
            "BEGIN",
            "INSERT INTO phases VALUES ({n})",
            "SAVEPOINT a",
            "INSERT INTO phases VALUES ({n} + 5000)",
            "ROLLBACK TO a",
            "COMMIT",
            "BEGIN",
            "INSERT INTO phases VALUES ({n} + 9000)",
            "ROLLBACK",
        ),
        "SELECT * FROM phases ORDER BY 1",
    ),
    Thing(
        "TRUNCATE",
        ("CREATE TABLE emptied (id int PRIMARY KEY)",),
        ("TRUNCATE emptied", "INSERT INTO emptied VALUES ({n})"),
        "SELECT * FROM emptied",
    ),
    Thing(
        "triggers and cascades, each once",
        (
            "CREATE TABLE parent (id int PRIMARY KEY)",
            (
                "CREATE TABLE child (id int PRIMARY KEY, parent int,"
                " FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE)"
            ),
            "CREATE TABLE audit (n int AUTO_INCREMENT PRIMARY KEY)",
            "CREATE TRIGGER noted AFTER INSERT ON child FOR EACH ROW INSERT INTO audit VALUES ()",
        ),
        (
            "INSERT INTO parent VALUES ({n})",
            "INSERT INTO child VALUES ({n}, {n})",
            "DELETE FROM parent WHERE id = {n} - 3",
        ),
        "SELECT count(*), (SELECT count(*) FROM child) FROM audit",
    ),
    Thing(
        "generated columns",
        (
            "CREATE TABLE doubled (id int PRIMARY KEY, twice int AS (id * 2) STORED, thrice int AS (id * 3) VIRTUAL)",
        ),
        ("INSERT INTO doubled (id) VALUES ({n})", "UPDATE doubled SET id = -id WHERE id = {n} - 1"),
        "SELECT * FROM doubled ORDER BY 1",
    ),
    Thing(
        "rows that move between partitions",
        (
            (
                "CREATE TABLE parts (id int, place int, PRIMARY KEY (id, place)) PARTITION BY LIST (place)"
                " (PARTITION a VALUES IN (0), PARTITION b VALUES IN (1))"
            ),
        ),
        ("INSERT INTO parts VALUES ({n}, 0)", "UPDATE parts SET place = 1 WHERE id = {n} - 1"),
        "SELECT * FROM parts ORDER BY 1",
    ),
    Thing(
        "large values",
        ("CREATE TABLE `long` (id int PRIMARY KEY, v int, content mediumblob)",),
        (
            "INSERT INTO `long` VALUES ({n}, 0, repeat(md5('{n}'), 500))",
            "UPDATE `long` SET v = v + 1 WHERE id <= {n}",
        ),
        "SELECT id, v, md5(content) FROM `long` ORDER BY 1",
    ),
    Thing(
        "sequences",
        ("CREATE SEQUENCE counter", "CREATE TABLE drawn (id int PRIMARY KEY)"),
        ("INSERT INTO drawn VALUES (nextval(counter))",),
        "SELECT count(*), nextval(counter) > max(id) FROM drawn",
    ),
    Thing(
        "AUTO_INCREMENT after the last rows are gone",
        ("CREATE TABLE numbered (id int AUTO_INCREMENT PRIMARY KEY)",),
        ("INSERT INTO numbered VALUES ()", "DELETE FROM numbered"),
        "SELECT auto_increment FROM information_schema.tables WHERE table_schema = database()"
        " AND table_name = 'numbered'",
    ),
    Thing(
        "a table without transactions",
        ("CREATE TABLE plain (id int PRIMARY KEY) ENGINE = Aria TRANSACTIONAL = 0",),
        ("INSERT INTO plain VALUES ({n})", "UPDATE plain SET id = -id WHERE id = {n} - 1"),
        "SELECT * FROM plain ORDER BY 1",
    ),
)

"""Random workloads: what applications do to tables of every replica identity."""

import psycopg
from hypothesis import strategies as st

SCHEMA = """
CREATE TABLE keyed (id int PRIMARY KEY, v text, long text, n numeric);
ALTER TABLE keyed ALTER long SET STORAGE EXTERNAL;
CREATE TABLE paired (a int, b text, v text, n numeric UNIQUE, PRIMARY KEY (a, b));
CREATE TABLE whole (a int, v text, j json); ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE indexed (id int NOT NULL UNIQUE, v text); ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_id_key;
CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v text,
  twice int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE parts (id int, place int, v text, PRIMARY KEY (id, place)) PARTITION BY LIST (place);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0, 1); CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES keyed ON DELETE CASCADE ON UPDATE CASCADE
  DEFERRABLE INITIALLY DEFERRED);
"""
TABLES = ("keyed", "paired", "whole", "indexed", "always", "parts", "child")
_NUMBERS = st.integers(0, 9)
_TEXTS = st.sampled_from(["NULL", "''", "'a'", "E'\\\\'", "E'\\t\\n'", "'\"{},'", "repeat('z', 50)"])
_LONG = st.sampled_from(["NULL", "repeat('long', 900)", "repeat('other', 900)", "'short'"])


def _sql(pattern: str, **fields: st.SearchStrategy) -> st.SearchStrategy[str]:
    numbers = {name: _NUMBERS for name in ("i", "k", "m") if f"{{{name}}}" in pattern}
    texts = {name: _TEXTS for name in ("v", "w") if f"{{{name}}}" in pattern}
    chosen = st.fixed_dictionaries(numbers | texts | fields)
    return chosen.map(lambda values: pattern.format(**values))


STATEMENTS = st.one_of(
    _sql("INSERT INTO keyed VALUES ({i}, {v}, {long}, {k})", long=_LONG),
    _sql("INSERT INTO keyed SELECT g, {v}, {long}, g / 2.0 FROM generate_series({i}, 9) g", long=_LONG),
    _sql("UPDATE keyed SET v = {v} WHERE id = {i}"),
    _sql("UPDATE keyed SET long = {long}, n = n + 1 WHERE id >= {i}", long=_LONG),
    _sql("UPDATE keyed SET id = id + 10 * {k} WHERE id = {i}"),
    _sql("UPDATE keyed SET n = -n"),
    _sql("DELETE FROM keyed WHERE id = {i}"),
    _sql("INSERT INTO paired VALUES ({i}, {v}, {w}, {k})"),
    _sql("UPDATE paired SET b = {v} WHERE a = {i}"),
    _sql("UPDATE paired SET n = 9 - n WHERE a > {i}"),
    _sql("UPDATE paired SET a = a + 1 WHERE a = {i}"),
    _sql("DELETE FROM paired WHERE a < {i}"),
    _sql("INSERT INTO whole SELECT {i}, {v}, '{{}}' FROM generate_series(0, {k} % 3)"),
    _sql("UPDATE whole SET v = {v} WHERE a = {i}"),
    _sql("UPDATE whole SET a = {k} WHERE ctid = (SELECT min(ctid) FROM whole)"),
    _sql("DELETE FROM whole WHERE ctid = (SELECT max(ctid) FROM whole)"),
    _sql("INSERT INTO indexed VALUES ({i}, {v})"),
    _sql("UPDATE indexed SET id = {k}, v = {v} WHERE id = {i}"),
    _sql("DELETE FROM indexed WHERE id = {i}"),
    _sql("INSERT INTO always (v) VALUES ({v})"),
    _sql("UPDATE always SET v = {v}"),
    _sql("UPDATE always SET n = DEFAULT WHERE id % 3 = {k} % 3"),
    _sql("UPDATE always SET id = DEFAULT WHERE id % 5 = {k} % 5"),
    _sql("INSERT INTO parts VALUES ({i}, {k}, {v})"),
    _sql("UPDATE parts SET place = {k} WHERE id = {i}"),
    _sql("DELETE FROM parts WHERE place = {k}"),
    _sql("INSERT INTO child VALUES ({i}, {k})"),
    _sql("TRUNCATE keyed, child RESTART IDENTITY"),
    _sql("TRUNCATE keyed CASCADE"),
    _sql("TRUNCATE parts"),
    st.sampled_from(["SAVEPOINT a", "ROLLBACK TO a", "SAVEPOINT b", "ROLLBACK TO b"]),
)
ENDS = ("COMMIT", "COMMIT", "COMMIT", "ROLLBACK", "COMMIT PREPARED 'two'", "ROLLBACK PREPARED 'two'")
TRANSACTIONS = st.tuples(st.lists(STATEMENTS, min_size=1, max_size=12), st.sampled_from(ENDS))
WORKLOADS = st.lists(TRANSACTIONS, min_size=1, max_size=6)


def run(url: str, workload: list[tuple[list[str], str]]) -> None:
    """Run transactions one after the other; a statement that fails is as if it were not there."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statements, end in workload:
            connection.execute("BEGIN")
            for statement in statements:
                _try(connection, statement)
            try:
                if "PREPARED" in end:
                    connection.execute("PREPARE TRANSACTION 'two'")
                connection.execute(end.encode())
            except psycopg.errors.ForeignKeyViolation:  # deferred
                connection.rollback()


def _try(connection: psycopg.Connection, statement: str) -> None:
    if statement.startswith("SAVEPOINT"):
        connection.execute(statement.encode())
        return
    connection.execute("SAVEPOINT moment")
    try:
        connection.execute(statement.encode())
    except psycopg.Error:  # a savepoint that there is not; a key that is taken
        connection.execute("ROLLBACK TO moment")

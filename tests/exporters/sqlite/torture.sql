PRAGMA foreign_keys = OFF;
CREATE TABLE anything (a, b INTEGER, c REAL, d TEXT, e BLOB, f NUMERIC, "we""ird $exact" DATETIME);
INSERT INTO anything VALUES
  (NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (1, 9223372036854775807, -0.0, 'text', x'00ff', 0.99, '2024-02-30'),
  (1.0, -9223372036854775808, 9e999, '', x'', 1, 1700000000),
  ('1', 'no number', -9e999, 'a' || char(0) || 'b', 'text in a blob', '007x', 1.5),
  (x'31', 2.5, 4.9e-324, char(10) || '"quoted", ' || char(128512), 5, 9007199254740993, x'00'),
  (0.1, x'', 1.7976931348623157e308, 'ÿ', 2.25, 1e100, ''),
  (CAST(x'ff41' AS TEXT), CAST(x'c3' AS TEXT), 'x', CAST(x'eda080' AS TEXT), CAST(x'80' AS TEXT), 3, 'n');
DELETE FROM anything WHERE a = x'31';
INSERT INTO anything (rowid, a) VALUES (-5, 'before'), (9223372036854775807, 'last');
CREATE INDEX partial ON anything (b) WHERE b IS NOT NULL;
CREATE TABLE keyed (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE COLLATE NOCASE, parent REFERENCES keyed);
INSERT INTO keyed VALUES (7, 'Äpfel', NULL), (9, 'b', 7), (11, 'gone', 9);
DELETE FROM keyed WHERE id = 11;
CREATE INDEX expression ON keyed (lower(name) DESC, length(name));
CREATE TABLE without (k1 TEXT, k2 INT, v, PRIMARY KEY (k2 DESC, k1)) WITHOUT ROWID;
INSERT INTO without VALUES ('a', 1, x'01'), ('b', 1, 'b'), ('a', -1, 1.0), ('a', 2, NULL);
CREATE TABLE strictly (i INT, t TEXT, r REAL, b BLOB, a ANY, n INTEGER PRIMARY KEY DESC) STRICT;
INSERT INTO strictly VALUES (1, 't', 2, x'02', '000123', 1), (NULL, NULL, NULL, NULL, 123, 2), (3, '3', 3.5, x'', 1.0, 3);
CREATE TABLE generated (a INT, b INT AS (a * 2) STORED, c TEXT GENERATED ALWAYS AS ('v' || a) VIRTUAL, d);
INSERT INTO generated (a, d) VALUES (1, 'x'), (2, NULL), (NULL, 3);
CREATE TABLE shadowed (rowid TEXT, _rowid_ TEXT, v);
INSERT INTO shadowed VALUES ('r', 's', 1), (NULL, 'x', 2);
CREATE TABLE nameless (rowid, _rowid_, oid, v);
INSERT INTO nameless VALUES (1, 2, 3, 4), (NULL, NULL, NULL, NULL);
CREATE TABLE "select ""from"" . x
y" ("order by" TEXT, "a,b" INT, 'ünï' REAL);
INSERT INTO "select ""from"" . x
y" VALUES ('o', 1, 1.5);
CREATE TABLE "nothing" (x);
CREATE TABLE "" (x, "" INT, "COUNT(*)");
INSERT INTO "" (rowid, x, "") VALUES (7, 'seven', 5), (-7, NULL, 6);
CREATE TABLE desc_key (id INTEGER PRIMARY KEY DESC, v);
INSERT INTO desc_key VALUES (5, 'five'), (1, 'one');
CREATE TABLE log (what TEXT);
CREATE VIEW seen AS SELECT a.name, b.name AS parent FROM keyed a LEFT JOIN keyed b ON b.id = a.parent;
CREATE VIEW broken AS SELECT * FROM no_such_table;
CREATE TRIGGER logged AFTER INSERT ON keyed BEGIN INSERT INTO log (what) VALUES (new.name); END;
CREATE TRIGGER instead INSTEAD OF INSERT ON seen BEGIN INSERT INTO log (what) VALUES ('seen ' || new.name); END;
CREATE VIRTUAL TABLE words USING fts5(title, body, tokenize = 'unicode61');
INSERT INTO words VALUES ('one', 'the quick brown fox'), ('two', 'jumps over the lazy dog');
DELETE FROM words WHERE title = 'one';
CREATE VIRTUAL TABLE old_words USING fts4(body);
INSERT INTO old_words VALUES ('slow red turtles');
CREATE VIRTUAL TABLE boxes USING rtree(id, x1, x2);
INSERT INTO boxes VALUES (1, 0.5, 1.5), (2, -3, 4);
CREATE INDEX after_all ON log (what);
ALTER TABLE log ADD COLUMN more INT DEFAULT 42;
INSERT INTO log VALUES ('w', 1);
ANALYZE;
PRAGMA user_version = 4711;
PRAGMA application_id = -252006674;

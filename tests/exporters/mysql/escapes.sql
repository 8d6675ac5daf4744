SET sql_mode = '';
CREATE TABLE texts (
  id INT PRIMARY KEY AUTO_INCREMENT, plain VARCHAR(20) DEFAULT 'it''s \\ "q"' COMMENT 'c''s \\ "q"', long_ TEXT DEFAULT 'it''s \\, KEY (x',
  made VARCHAR(40) AS (CONCAT(plain, 'a''b\\', "\"")) STORED, called TEXT DEFAULT (CONCAT('\\', UPPER('x''y'))), e ENUM('\\', 'a''b', 'c,d'),
  raw BINARY(3) DEFAULT 'a\0\\', KEY by_made (made), CONSTRAINT `c\d` CHECK (plain <> 'no\\, it''s')
) COMMENT 't''s \\ "q"';
INSERT INTO texts (e) VALUES ('\\'), ('a''b');
CREATE TABLE parts (k VARCHAR(9)) PARTITION BY LIST COLUMNS (k) (PARTITION p0 VALUES IN ('it''s', 'a\\b') COMMENT = 'p''s \\ "q"', PARTITION p1 VALUES IN ('x'));
INSERT INTO parts VALUES ('it''s'), ('a\\b'), ('x');
CREATE FUNCTION slashed() RETURNS VARCHAR(9) DETERMINISTIC RETURN 'a\\''';
SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES';
CREATE FUNCTION "un\slashed"() RETURNS VARCHAR(9) DETERMINISTIC RETURN 'a\''';
CREATE PROCEDURE "comm\ented"() COMMENT 'p''s \' SELECT 1;
CREATE FUNCTION "lab\elled"(a ENUM('x\', 'y''')) RETURNS ENUM('a\n', '\', 'it''s') DETERMINISTIC RETURN NULL;
CREATE EVENT "ev\ent" ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01' DISABLE COMMENT 'e''s \' DO SELECT '\';
SET sql_mode = '';
CREATE VIEW of_texts AS SELECT 'a\\b' AS a, 'it''s' AS `b\c`, slashed() AS d FROM texts;
CREATE VIEW of_bytes AS SELECT _latin1 x'FC5C27' AS l, _cp1251 x'C6' AS c, _binary x'FF00' AS b;
CREATE TRIGGER slashing BEFORE INSERT ON parts FOR EACH ROW SET NEW.k = REPLACE(NEW.k, '/', '\\');
CREATE TRIGGER marked BEFORE UPDATE ON parts FOR EACH ROW SET NEW.k = '$$//';

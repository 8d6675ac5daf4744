-- Checks that have become untrue, and a view that cannot be made again.
CREATE FUNCTION ok(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE DOMAIN positive AS int CONSTRAINT pos CHECK (ok(VALUE)); COMMENT ON CONSTRAINT pos ON DOMAIN positive IS 'of a domain';
CREATE TABLE parent (i int CONSTRAINT "odd ""c" CHECK (ok(i)), d positive, ds positive[]);
COMMENT ON CONSTRAINT "odd ""c" ON parent IS 'of a table';
CREATE TABLE child (j int) INHERITS (parent);
CREATE TABLE whole (i int CONSTRAINT of_whole CHECK (ok(i)), k int) PARTITION BY LIST (k);
CREATE TABLE part1 PARTITION OF whole FOR VALUES IN (1); CREATE TABLE part2 PARTITION OF whole FOR VALUES IN (2);
INSERT INTO parent VALUES (-1, -2, '{-3}'), (1, 2, '{3}'); INSERT INTO child VALUES (-5, 5, NULL, 7);
INSERT INTO whole VALUES (-1, 1), (-2, 2), (3, 2);
CREATE OR REPLACE FUNCTION ok(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i > 0';
CREATE TABLE divisor (i int); INSERT INTO divisor VALUES (1);
CREATE MATERIALIZED VIEW divided AS SELECT 1 / i AS q FROM divisor; CREATE INDEX ON divided (q);
UPDATE divisor SET i = 0;
CREATE TABLE later (i int PRIMARY KEY REFERENCES later); INSERT INTO later VALUES (1);

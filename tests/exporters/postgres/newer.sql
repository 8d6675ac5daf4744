-- What only servers from a version on have.
-- 15
CREATE TABLE once (a int, b text, UNIQUE NULLS NOT DISTINCT (a)); INSERT INTO once VALUES (NULL, 'x'), (1, 'y');
CREATE VIEW asked WITH (security_invoker) AS SELECT * FROM once;
CREATE SCHEMA told; CREATE TABLE told.t (id int PRIMARY KEY, b text); INSERT INTO told.t VALUES (1, 'b');
CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA told; CREATE PUBLICATION filtered FOR TABLE told.t (id) WHERE (id > 5);
CREATE TABLE owned (id int PRIMARY KEY, of int REFERENCES owned ON DELETE SET NULL (of)); INSERT INTO owned VALUES (1, 1);
-- 17
CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY, k int) PARTITION BY RANGE (k);
CREATE TABLE numbered_1 PARTITION OF numbered FOR VALUES FROM (0) TO (9); INSERT INTO numbered (k) VALUES (1), (2);
CREATE TABLE ends (d interval, t timestamptz); INSERT INTO ends VALUES ('infinity', 'infinity'), ('-infinity', NULL), ('1 day', NULL);
GRANT MAINTAIN ON ends TO pg_monitor;
CREATE TABLE shared (room int4range, at daterange, EXCLUDE USING gist (room WITH =, at WITH &&)) PARTITION BY LIST (room);
CREATE TABLE shared_1 PARTITION OF shared FOR VALUES IN ('[1,2)') PARTITION BY LIST (room);
CREATE TABLE "shared ''2" PARTITION OF shared_1 FOR VALUES IN ('[1,2)'); INSERT INTO shared VALUES ('[1,2)', '[2020-01-01,2020-02-01)');
ALTER TABLE "shared ''2" RENAME CONSTRAINT "shared ''2_room_at_excl" TO "it""s ''its own";
-- 18
CREATE TABLE lets (room int4range, at daterange, CONSTRAINT k PRIMARY KEY (room, at WITHOUT OVERLAPS)) PARTITION BY LIST (room);
CREATE TABLE lets_1 PARTITION OF lets FOR VALUES IN ('[1,2)'); INSERT INTO lets VALUES ('[1,2)', '[2020-01-01,2020-02-01)');
ALTER TABLE lets_1 CLUSTER ON lets_1_pkey; COMMENT ON CONSTRAINT lets_1_pkey ON lets_1 IS 'of one room';
CREATE TABLE of_lets (room int4range, at daterange, FOREIGN KEY (room, PERIOD at) REFERENCES lets (room, PERIOD at));
CREATE TABLE shown (a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL, thrice int GENERATED ALWAYS AS (a * 3) STORED);
INSERT INTO shown VALUES (1), (NULL);
CREATE TABLE stays (room int4range, at daterange, PRIMARY KEY (room, at WITHOUT OVERLAPS)); INSERT INTO stays VALUES ('[1,2)', '[2020-01-01,2020-02-01)');
CREATE TABLE visits (room int4range, at daterange, FOREIGN KEY (room, PERIOD at) REFERENCES stays (room, PERIOD at));
INSERT INTO visits VALUES ('[1,2)', '[2020-01-05,2020-01-06)');
CREATE TABLE lax (a int CHECK (a > 0) NOT ENFORCED, b int); ALTER TABLE lax ADD CONSTRAINT there NOT NULL b NOT VALID; INSERT INTO lax VALUES (-1, 1);
CREATE TABLE taken (a int NOT NULL); CREATE TABLE copy_of_taken (LIKE taken INCLUDING ALL); ALTER TABLE taken ADD CONSTRAINT x CHECK (a > 0);

CREATE SCHEMA "odd Schema";
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy, "really"');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN email AS text CHECK (VALUE ~ '@');
CREATE DOMAIN cents AS numeric(12, 2) NOT NULL DEFAULT 0;
CREATE DOMAIN nested AS cents CHECK (VALUE >= 0);
CREATE TABLE torture (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  b bool, i2 smallint, i4 int, i8 bigint, o oid, f4 real, f8 double precision,
  n_plain numeric, n_small numeric(15, 2), n_wide numeric(38, 10), n_wider numeric(60, 20), n_int numeric(5), n_negative numeric(3, -2),
  t text, vc varchar(40), bc char(6), nm name, ch "char", by bytea,
  d date, ts timestamp, ts0 timestamp(0), tz timestamptz, tm time, ttz timetz, iv interval,
  u uuid, j json, jb jsonb, m mood, em email, ce cents, ne nested,
  ai int[], at text[], am int[][], an numeric[], bt bit(5), bv varbit, ip inet, ci cidr, mac macaddr,
  tv tsvector, tq tsquery, mo money, r int4range, tr tstzrange, c pair, ca pair[],
  p point, po polygon, ls pg_lsn, rc regclass, jp jsonpath,
  g numeric(20, 3) GENERATED ALWAYS AS (n_small * 1.5) STORED,
  "odd ""name"", really" text, "t$exact" text, "f8$exact" int
);
INSERT INTO torture (b, i2, i4, i8, o, f4, f8, n_plain, n_small, n_wide, n_wider, n_int, n_negative, t, vc, bc, nm, ch, by, d, ts, ts0, tz,
  tm, ttz, iv, u, j, jb, m, em, ce, ne, ai, at, am, an, bt, bv, ip, ci, mac, tv, tq, mo, r, tr, c, ca, p, po, ls, rc, jp,
  "odd ""name"", really", "t$exact", "f8$exact") VALUES
  (true, 32767, 2147483647, 9223372036854775807, 4294967295, 3.4028235e38, 1.7976931348623157e308, 'NaN', 'NaN', 'NaN', 'NaN',
   'NaN', 12300, E'line\nfeed, "quote" \\ back\r\ttab', 'näïve', 'ab', 'name', 'c', '\x00ff10', 'infinity', 'infinity', '-infinity',
   '-infinity', '24:00:00', '12:34:56.5+05:30', '1 year 2 mons -3 days 04:05:06.789', '00112233-4455-6677-8899-aabbccddeeff',
   '{"a" : 1,  "a": 2}', '{"b": [1, 2.50, null]}', 'happy, "really"', 'a@b', 1.5, 2.25, '{1,NULL,3}', ARRAY['a,b', 'NULL', NULL, '"', '\'],
   '{{1,2},{3,4}}', '{NaN,1.10}', B'10101', B'1', '10.0.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', 'fat:1 cat:2A'::tsvector, 'fat & cat',
   '-1234.56', '[1,10)', '[2020-01-01,infinity)', ROW(1, 'x,"y"'), ARRAY[ROW(1,NULL)::pair, ROW(NULL,'')::pair],
   '(1.5,-2)', '((0,0),(1,1),(1,0))', '16/B374D848', 'pg_class', '$.a[*] ? (@ > 1)', 'x', 'y', 1),
  (false, -32768, -2147483648, -9223372036854775808, 0, -1.4e-45, 5e-324, '1e500', -0.01, 0.0000000001, 1e-20, -99999, 0, '', '', '', '', '', '',
   '4713-01-01 BC', '4713-01-01 00:00:00 BC', '294276-12-31 23:59:59', '294276-12-31 23:59:59.999999+00', '00:00', '00:00:00-15:59', '-178000000 years',
   'ffffffff-ffff-ffff-ffff-ffffffffffff', '""', '"\u00e9"', 'sad', '@', -1, 0, '{}', '{}', '{}', '{}', B'00000', B'', '::1', '::/0',
   'ff:ff:ff:ff:ff:ff', '', '', 0, 'empty', '(,)', ROW(NULL, NULL), '{}', '(NaN,Infinity)', '((0,0))', '0/0', '0', '$', '', '', 0),
  (NULL, 0, 0, 0, 1, '-0', '-0', 0.00, 0, 0, 0, 0, 100, '\.', E'\n', ' x', E'\u00e9', 'x', '\x5c2e', '0001-01-01', '0001-01-01 00:00:00.000001', '9999-12-31 23:59:59',
   '1969-12-31 23:59:59.999999+00', '23:59:59.999999', '24:00:00+15:59', '0', '00000000-0000-0000-0000-000000000000', 'null', 'null', 'ok', 'x@y', 99.99, 1e9,
   '[0:1]={7,8}', ARRAY[E'\n', ' '], '{{NULL},{1}}', '{0.1}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 92233720368547758.07, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, E'\ufeff', '\\', NULL),
  (NULL, NULL, NULL, NULL, NULL, 'NaN', 'NaN', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '10000-01-01', '10000-01-01', NULL, '0001-12-31 23:59:59.5+00 BC',
   NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (NULL, 1, 1, 1, 2, 'Infinity', '-Infinity', 123456789.123456789, 9999999999999.99, 9999999999999999999999999999.9999999999, 1, 1, 99900, ',', '"', '"', 'a b', ',', 'text', '2020-02-29',
   '2020-02-29 12:00:00.1', '2020-02-29 12:00', '2020-02-29 12:00:00.120000+00', '12:00:00.10', NULL, 'P1M', NULL, '[1, 2]', '[1, 2]', NULL, NULL, 0, 0, NULL, NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO torture (f4, f8) SELECT v::float4, v FROM unnest(ARRAY[0.1, 1e-5, 1.5e-5, 1e-4, 1e14, 1e15, 123456789012345, 1234567890123456, 1e23, 9007199254740993,
  1e-7, 2.5e-10, 1e22, 4.35, 100000, 1000000, 123456.7, 3e-38]::float8[]) v;
CREATE TABLE "odd Schema"."odd ""Table""" ("select" int, "a,b" text);
INSERT INTO "odd Schema"."odd ""Table""" VALUES (1, E'\ufeffbom'), (2, NULL);
CREATE TABLE one_text (t text);
INSERT INTO one_text VALUES (NULL), (''), ('\.'), (E'\n'), ('"'), ('x'), (NULL);
CREATE TABLE no_columns ();
INSERT INTO no_columns SELECT FROM generate_series(1, 7);
CREATE TABLE empty_table (a int, b timestamptz);
CREATE UNLOGGED TABLE unlogged_table (a int DEFAULT 5);
INSERT INTO unlogged_table DEFAULT VALUES;
CREATE TABLE parent (id int, t text);
CREATE TABLE child (extra int) INHERITS (parent);
INSERT INTO parent VALUES (1, 'p');
INSERT INTO child VALUES (2, 'c', 3);
CREATE TABLE measured (at timestamptz NOT NULL, v float8) PARTITION BY RANGE (at);
CREATE TABLE measured_2020 PARTITION OF measured FOR VALUES FROM ('2020-01-01') TO ('2021-01-01') PARTITION BY HASH (v);
CREATE TABLE measured_2020_a PARTITION OF measured_2020 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE measured_2020_b PARTITION OF measured_2020 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE measured_rest PARTITION OF measured DEFAULT;
INSERT INTO measured SELECT '2020-12-30'::timestamptz + n * interval '1 hour', n / 7.0 FROM generate_series(1, 100) n;
CREATE TABLE husband (id int PRIMARY KEY, wife int);
CREATE TABLE wife (id int PRIMARY KEY, husband int REFERENCES husband);
ALTER TABLE husband ADD FOREIGN KEY (wife) REFERENCES wife DEFERRABLE INITIALLY DEFERRED;
BEGIN;
INSERT INTO husband VALUES (1, 1);
INSERT INTO wife VALUES (1, 1);
COMMIT;
CREATE SEQUENCE lonely START 5 INCREMENT -3 MINVALUE -100 MAXVALUE 10;
SELECT nextval('lonely'), nextval('lonely');
CREATE SEQUENCE untouched START 42;
CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.a := NEW.a + 1; -- \restrict is not a command here
  RETURN NEW;
END $$;
CREATE TRIGGER up BEFORE INSERT ON unlogged_table FOR EACH ROW EXECUTE FUNCTION count_up();
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT i * 2; SELECT i * 2; END;
CREATE INDEX ON torture (lower(t)) WHERE i4 > 0;
CREATE VIEW shown AS SELECT id, t FROM torture;
CREATE MATERIALIZED VIEW first_level AS SELECT count(*) AS n FROM torture;
CREATE MATERIALIZED VIEW second_level AS SELECT n + 1 AS n FROM first_level;
CREATE MATERIALIZED VIEW never_filled AS SELECT 1 AS n WITH NO DATA;
ALTER TABLE one_text ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON one_text USING (t IS NOT NULL);
COMMENT ON TABLE torture IS 'it''s a; comment';
SELECT lo_from_bytea(424242, decode(repeat('00ff', 150000), 'hex')), lo_create(424243);

-- Every kind of object that pg_dump knows and a server without contrib can make.
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'torture owner') THEN CREATE ROLE "torture owner" NOLOGIN; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'torture_reader') THEN CREATE ROLE torture_reader NOLOGIN IN ROLE "torture owner"; END IF;
END $$;
CREATE SCHEMA "Ünïcode ""schema"".x" AUTHORIZATION "torture owner";
CREATE SCHEMA same; CREATE SCHEMA "Same"; CREATE SCHEMA "select";
CREATE TABLE "Ünïcode ""schema"".x"."ääääääääääääääääääääääääääääääx" ("new
line" int, "a.b" text, "c""d" text, "'" text, "SELECT" int, " " int, "\" int, "%s" int, "{0}" int, "$1" int);
INSERT INTO "Ünïcode ""schema"".x"."ääääääääääääääääääääääääääääääx" VALUES (1, '2', '3', '4', 5, 6, 7, 8, 9, 10);
CREATE TABLE same.t (a int); CREATE TABLE "Same".t (a int); CREATE TABLE "Same"."T" (a int); CREATE TABLE "select"."table" ("order" int);
INSERT INTO same.t VALUES (1); INSERT INTO "Same".t VALUES (2); INSERT INTO "Same"."T" VALUES (3); INSERT INTO "select"."table" VALUES (4);

-- Types
CREATE TYPE addr AS (street text COLLATE "C", n int);
CREATE TYPE deep AS (a addr, bs addr[], m int4multirange);
CREATE TYPE size AS ENUM ('s', 'l'); ALTER TYPE size ADD VALUE 'm' BEFORE 'l'; ALTER TYPE size ADD VALUE 'xs' BEFORE 's';
CREATE TYPE floats AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = many_floats);
CREATE TYPE shell;
CREATE DOMAIN ints AS int[] CHECK (array_length(VALUE, 1) < 9);
CREATE DOMAIN home AS addr CHECK ((VALUE).n > 0);
CREATE DOMAIN late AS text; ALTER DOMAIN late ADD CONSTRAINT short CHECK (length(VALUE) < 5) NOT VALID;
CREATE TABLE typed OF addr (street WITH OPTIONS NOT NULL DEFAULT 'x', PRIMARY KEY (n)); INSERT INTO typed VALUES ('a', 1);
CREATE TABLE composed (d deep, i ints, h home, s size, ss size[], f floats, fm many_floats, l late, o "Same".t, os same.t[]);
INSERT INTO composed VALUES (ROW(ROW('a,"', 1), ARRAY[ROW(NULL, 2)::addr, NULL], '{[1,3), [5,7)}'), '{1,2}', ROW('x', 1), 'm', '{xs,NULL,l}',
  '[1.5,NaN]', '{[1,2),(3,]}', 'abc', ROW(7), ARRAY[ROW(8)::same.t]), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (ROW(NULL, NULL, NULL), '{}', NULL, 'xs', '{}', 'empty', '{}', '', ROW(NULL), '{}');
CREATE TABLE built_in (a1 bool[], a2 bytea[], a3 "char"[], a4 name[], a5 int8[], a6 int2[], a7 int2vector, a8 regproc, a9 oid[], a10 tid, a11 xid, a12 cid, a13 oidvector,
  a14 point[], a15 lseg, a16 path, a17 box, a18 polygon, a19 line, a20 circle, a21 money[], a22 macaddr8, a23 inet[], a24 cidr[], a25 aclitem, a26 bpchar[], a27 varchar(3)[],
  a28 date[], a29 time[], a30 timestamp[], a31 timestamptz[], a32 interval[], a33 timetz[], a34 bit(3)[], a35 varbit[], a36 numeric(5,2)[], a37 float4[], a38 float8[], a39 uuid[],
  a40 json[], a41 jsonb[], a42 tsvector[], a43 tsquery[], a44 int8range, a45 numrange, a46 tsrange, a47 tstzrange[], a48 daterange, a49 nummultirange, a50 datemultirange[],
  a51 regtype, a52 regnamespace, a53 regconfig, a54 regdictionary, a55 regrole, a56 regoperator, a57 regprocedure, a58 pg_lsn[], a59 txid_snapshot, a60 xid8, a61 pg_snapshot, a62 jsonpath,
  a63 interval year to month, a64 interval second(2), a65 timestamp(3) with time zone, a66 time(1), a67 timetz(0), a68 regcollation, a69 refcursor, a70 box[]);
INSERT INTO built_in (a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22, a23, a24, a25, a26, a27, a28, a29, a30, a31, a32, a33, a34, a35,
  a36, a37, a38, a39, a40, a41, a42, a43, a44, a45, a46, a47, a48, a49, a50, a51, a52, a53, a54, a55, a56, a57, a58, a59, a60, a61, a62, a63, a64, a65, a66, a67, a68, a69, a70) VALUES
  ('{t,f,NULL}', '{"\\x00ff",""}', '{a,"\"",""}', '{n}', '{-9223372036854775808}', '{{1},{2}}', '1 2 3', 'now', '{4294967295}', '(0,1)', '3', '4', '5 6', '{"(1,2)","(NaN,-Infinity)"}',
   '[(0,0),(1,1)]', '((0,0),(1,1))', '(1,1),(0,0)', '((0,0),(1,0),(1,1))', '{1,2,3}', '<(0,0),1>', '{1.25,-3}', '08:00:2b:01:02:03:04:05', '{10.0.0.1/8,::1}', '{10.0.0.0/8}',
   'postgres=r/postgres', '{"a  ",b}', '{abc,"",NULL}', '{infinity,-infinity,"4713-01-01 BC",5874897-12-31}', '{24:00:00,00:00:00.000001}', '{infinity,"294276-12-31 23:59:59.999999"}',
   '{-infinity,"4713-01-01 00:00:00+00 BC"}', '{"178000000 years","-1 mons +2 days -03:04:05.000006",00:00:00}', '{24:00:00+15:59,00:00:00-15:59}', '{101,NULL}', '{"",1}', '{NaN,999.99,-0.01}',
   '{NaN,Infinity,-Infinity,1e-45,0.1}', '{NaN,Infinity,-0,5e-324,1e23}', '{00112233-4455-6677-8899-aabbccddeeff}', '{"{\"a\" :1}",null}', '{"{\"b\": 1}","null"}', '{a:1B,b}', '{"a & b"}', '[1,)',
   '(1.5,NaN]', '["2020-01-01 00:00:00",infinity)', '{"[-infinity,2020-01-01)",empty}', '[2020-01-01,)', '{(,1.5),[2,2]}', '{"{[2020-01-01,2020-02-01)}"}', 'int4', 'pg_catalog', 'pg_catalog.simple',
   'pg_catalog.simple', 'postgres', '+(integer,integer)', 'abs(integer)', '{0/0,FFFFFFFF/FFFFFFFF}', '10:20:15,17', '18446744073709551615', '10:20:15', 'strict $.a', '3 years 2 mons', '1.239',
   '2020-01-01 00:00:00.1239+05', '01:02:03.45', '01:02:03+02', 'pg_catalog."C"', 'cursor', '{(1,1),(0,0);(2,2),(1,1)}'), (DEFAULT, '{}', NULL, NULL, '[-2:-1]={1,2}', NULL, '', NULL, NULL, NULL,
   NULL, NULL, '', NULL, NULL, '[(0,0)]', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
DO $$ BEGIN EXECUTE 'CREATE TABLE widest (' || (SELECT string_agg('c' || n || ' int', ', ') FROM generate_series(1, 1600) n) || ')';
  EXECUTE 'INSERT INTO widest SELECT ' || (SELECT string_agg('g * ' || n, ', ') FROM generate_series(1, 1600) n) || ' FROM generate_series(1, 5) g'; END $$;

-- Tables
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE other_method (a int) USING heap2; INSERT INTO other_method VALUES (1);
CREATE UNLOGGED TABLE fleeting (a int); INSERT INTO fleeting VALUES (1);
CREATE TABLE first_parent (a int NOT NULL, b text DEFAULT 'b'); CREATE TABLE second_parent (b text, c int CHECK (c > 0) NO INHERIT);
CREATE TABLE heir (d int) INHERITS (first_parent, second_parent); ALTER TABLE heir ALTER b SET DEFAULT 'mine'; INSERT INTO heir VALUES (1, '2', 3, 4);
CREATE TABLE changed (a int, gone text, c int); INSERT INTO changed VALUES (1, 'x', 2); ALTER TABLE changed DROP gone; ALTER TABLE changed ADD late int DEFAULT 9;
CREATE TABLE tuned (a text, b text COMPRESSION pglz, c int) WITH (fillfactor = 70, autovacuum_enabled = off, toast.autovacuum_enabled = off);
ALTER TABLE tuned ALTER a SET STORAGE EXTERNAL, ALTER a SET STATISTICS 500, ALTER c SET (n_distinct = -0.5); INSERT INTO tuned VALUES (repeat('x', 9000), repeat('y', 9000), 1);
CREATE TABLE pieces (k size, at date, t text) PARTITION BY LIST (k);
CREATE TABLE piece_s (t text, unused int, at date, k size); ALTER TABLE piece_s DROP unused; ALTER TABLE pieces ATTACH PARTITION piece_s FOR VALUES IN ('s', 'xs');
CREATE TABLE piece_m PARTITION OF pieces FOR VALUES IN ('m', NULL) PARTITION BY RANGE (at, t COLLATE "C");
CREATE TABLE piece_m_1 PARTITION OF piece_m FOR VALUES FROM (MINVALUE, MINVALUE) TO ('2020-01-01', 'm'); CREATE TABLE piece_m_2 PARTITION OF piece_m DEFAULT;
INSERT INTO pieces VALUES ('s', '2020-01-01', 'a'), ('xs', NULL, NULL), ('m', '2019-01-01', 'x'), (NULL, '2021-01-01', 'y'); CREATE TABLE no_pieces (a int) PARTITION BY HASH (a);
CREATE FOREIGN DATA WRAPPER nowhere OPTIONS (a 'b'); CREATE SERVER far TYPE 't' VERSION '1' FOREIGN DATA WRAPPER nowhere OPTIONS (host 'h''x');
CREATE FOREIGN TABLE distant (a int OPTIONS (x 'y') NOT NULL, b text) SERVER far OPTIONS (c 'd'); COMMENT ON FOREIGN TABLE distant IS 'far away';
CREATE TABLE numbered (id int GENERATED BY DEFAULT AS IDENTITY (START 100 INCREMENT -7 MINVALUE -1000 MAXVALUE 100 CYCLE) PRIMARY KEY, s smallserial, b bigserial,
  g int GENERATED ALWAYS AS (s * 2) STORED, u uuid DEFAULT gen_random_uuid());
INSERT INTO numbered (u) SELECT NULL FROM generate_series(1, 5); INSERT INTO numbered (u) VALUES (DEFAULT);

-- Indexes and constraints
CREATE TABLE constrained (a int, b int, c text, r int4range, p point, CONSTRAINT ab UNIQUE (a) INCLUDE (b), UNIQUE (b) DEFERRABLE INITIALLY DEFERRED,
  EXCLUDE USING gist (r WITH &&) WHERE (a > 0), CHECK (a > 0 OR b IS NULL)) ;
CREATE UNIQUE INDEX by_c ON constrained (lower(c) COLLATE "C" text_pattern_ops DESC NULLS LAST) WHERE c <> ''; CREATE INDEX ON constrained USING gist (p); CREATE INDEX ON constrained USING hash (c);
CREATE INDEX ON constrained USING brin (a) WITH (pages_per_range = 4); CREATE INDEX "odd "" index" ON constrained USING gin (to_tsvector('simple', c));
CREATE UNIQUE INDEX identifies ON constrained (a); ALTER TABLE constrained ALTER a SET NOT NULL; ALTER TABLE constrained REPLICA IDENTITY USING INDEX identifies; ALTER TABLE constrained CLUSTER ON ab;
ALTER INDEX constrained_p_idx SET (fillfactor = 80); INSERT INTO constrained VALUES (1, 1, 'C', '[1,2)', '(1,2)'), (2, NULL, '', '[2,3)', NULL);
ALTER TABLE constrained ADD CONSTRAINT later CHECK (a < 2) NOT VALID; CREATE TABLE refers (a int REFERENCES constrained (a) ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE);
INSERT INTO refers VALUES (1); ALTER TABLE refers ADD CONSTRAINT wrong FOREIGN KEY (a) REFERENCES numbered NOT VALID;
CREATE TABLE months (m int NOT NULL, id int) PARTITION BY RANGE (m); CREATE TABLE month_1 PARTITION OF months FOR VALUES FROM (1) TO (2); CREATE TABLE month_2 PARTITION OF months FOR VALUES FROM (2) TO (3);
ALTER TABLE months ADD PRIMARY KEY (m, id); CREATE INDEX ON months (id DESC); CREATE INDEX only_here ON month_1 (id) WHERE id > 3; INSERT INTO months SELECT 1 + n % 2, n FROM generate_series(1, 30) n;
CREATE TABLE of_months (m int, id int, FOREIGN KEY (m, id) REFERENCES months) PARTITION BY LIST (m); CREATE TABLE of_month_1 PARTITION OF of_months FOR VALUES IN (1); INSERT INTO of_months VALUES (1, 2);
ALTER TABLE of_month_1 ADD FOREIGN KEY (m, id) REFERENCES month_1 (m, id);
CREATE STATISTICS same.related (dependencies, mcv) ON a, b FROM constrained; ALTER STATISTICS same.related SET STATISTICS 77; CREATE STATISTICS expressed ON (a + b), lower(c) FROM constrained;

-- Code
CREATE FUNCTION same."odd (name"(a int DEFAULT 5, VARIADIC b text[] DEFAULT '{}', OUT c int) LANGUAGE plpgsql STABLE LEAKPROOF PARALLEL SAFE COST 7 SET search_path TO same, pg_temp SET work_mem TO '5MB'
  AS $body$ BEGIN c := a; /* -- Name: x; Type: TABLE; Schema: y; Owner: z */ END $body$;
CREATE PROCEDURE proceed(INOUT a int) LANGUAGE sql SECURITY DEFINER AS 'SELECT a + 1'; CREATE FUNCTION plus_text(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1 || $2';
CREATE FUNCTION of_key(x int) RETURNS TABLE (id int, n bigint) LANGUAGE sql BEGIN ATOMIC SELECT numbered.id, count(*) FROM numbered WHERE s > x GROUP BY numbered.id ORDER BY numbered.u; END;
CREATE AGGREGATE glue(text) (sfunc = plus_text, stype = text, initcond = ''); CREATE OPERATOR same.||| (leftarg = text, rightarg = text, function = plus_text);
CREATE FUNCTION size_to_int(size) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'; CREATE CAST (size AS int) WITH FUNCTION size_to_int(size) AS ASSIGNMENT;
CREATE OPERATOR FAMILY same.fam USING btree; CREATE OPERATOR CLASS same.reversed FOR TYPE int USING btree FAMILY same.fam AS OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 btint4cmp(int, int);
CREATE COLLATION same.plain (locale = 'C'); CREATE CONVERSION same.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8; CREATE FUNCTION same.handle() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler'; CREATE TRUSTED LANGUAGE quiet HANDLER same.handle;
CREATE TEXT SEARCH DICTIONARY words (template = simple, accept = false); CREATE TEXT SEARCH CONFIGURATION same.search (COPY = simple); ALTER TEXT SEARCH CONFIGURATION same.search ALTER MAPPING FOR word WITH words, simple;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.noted VALUES (TG_NAME); RETURN NEW; END'; CREATE TABLE noted (n text);
CREATE TRIGGER b_row BEFORE UPDATE OF a, b ON constrained FOR EACH ROW WHEN (OLD.a <> NEW.a) EXECUTE FUNCTION note('x', 'y''z');
CREATE TRIGGER a_statement AFTER INSERT ON constrained REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION note(); CREATE CONSTRAINT TRIGGER checked AFTER INSERT ON constrained DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER silent BEFORE INSERT ON constrained FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE constrained DISABLE TRIGGER silent; CREATE TRIGGER loud BEFORE INSERT ON typed FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE typed ENABLE ALWAYS TRIGGER loud;
CREATE TRIGGER copied AFTER INSERT ON months FOR EACH ROW EXECUTE FUNCTION note(); CREATE TRIGGER mirrored BEFORE INSERT ON refers FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE refers ENABLE REPLICA TRIGGER mirrored;
CREATE VIEW shown WITH (security_barrier) AS SELECT * FROM constrained WHERE a > 0 WITH LOCAL CHECK OPTION; CREATE TRIGGER instead INSTEAD OF INSERT ON shown FOR EACH ROW EXECUTE FUNCTION note();
CREATE RULE twice AS ON INSERT TO refers WHERE NEW.a > 5 DO ALSO INSERT INTO noted VALUES ('rule'); CREATE RULE never AS ON UPDATE TO noted DO INSTEAD NOTHING; ALTER TABLE noted DISABLE RULE never;
CREATE RECURSIVE VIEW counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 5; CREATE VIEW grouped AS SELECT n.*, count(*) AS many FROM numbered n GROUP BY n.id;
CREATE MATERIALIZED VIEW stored AS SELECT * FROM grouped; CREATE UNIQUE INDEX ON stored (id); CREATE VIEW of_stored AS SELECT count(*) FROM stored; CREATE MATERIALIZED VIEW stored_again WITH (fillfactor = 50) AS SELECT * FROM of_stored;
CREATE VIEW ping AS SELECT 1 AS a; CREATE VIEW pong AS SELECT * FROM ping; CREATE OR REPLACE VIEW ping AS SELECT 1 AS a WHERE NOT EXISTS (SELECT FROM pong);

-- Who may what
ALTER TABLE constrained ENABLE ROW LEVEL SECURITY; ALTER TABLE typed ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY "odd ""policy" ON constrained AS RESTRICTIVE FOR SELECT TO "torture owner", torture_reader USING (a > 0 AND c <> ';'); CREATE POLICY w ON constrained FOR INSERT WITH CHECK (true);
ALTER TABLE refers OWNER TO "torture owner"; ALTER FUNCTION note OWNER TO torture_reader; ALTER TYPE size OWNER TO "torture owner"; GRANT SELECT (a, b), UPDATE (c) ON constrained TO torture_reader; GRANT ALL ON constrained TO "torture owner" WITH GRANT OPTION;
GRANT USAGE ON SCHEMA same TO PUBLIC; REVOKE ALL ON FUNCTION note() FROM PUBLIC; GRANT USAGE ON TYPE size TO torture_reader; GRANT USAGE ON FOREIGN SERVER far TO torture_reader; GRANT USAGE, SELECT ON SEQUENCE numbered_b_seq TO torture_reader;
REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT USAGE ON LANGUAGE quiet TO torture_reader; REVOKE SELECT ON noted FROM postgres;
ALTER DEFAULT PRIVILEGES FOR ROLE "torture owner" IN SCHEMA same GRANT SELECT ON TABLES TO torture_reader; ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO torture_reader; ALTER DEFAULT PRIVILEGES FOR ROLE torture_reader REVOKE USAGE ON TYPES FROM PUBLIC;
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert, truncate'); CREATE PUBLICATION partly FOR TABLE constrained, ONLY first_parent;
SELECT lo_from_bytea(7001, 'owned'); ALTER LARGE OBJECT 7001 OWNER TO torture_reader; GRANT SELECT ON LARGE OBJECT 7001 TO "torture owner"; COMMENT ON LARGE OBJECT 7001 IS 'large; one'; SELECT lo_create(7002);
COMMENT ON SCHEMA "Same" IS E'two\nlines -- and \\ more'; COMMENT ON COLUMN constrained.a IS 'c'; COMMENT ON INDEX by_c IS 'i'; COMMENT ON CONSTRAINT ab ON constrained IS 'k'; COMMENT ON TRIGGER silent ON constrained IS 't';
COMMENT ON POLICY w ON constrained IS 'p'; COMMENT ON RULE never ON noted IS 'r'; COMMENT ON TYPE size IS 'e'; COMMENT ON DOMAIN late IS 'd'; COMMENT ON FUNCTION note() IS 'f'; COMMENT ON STATISTICS expressed IS 's'; COMMENT ON PUBLICATION partly IS 'q';
COMMENT ON CONSTRAINT short ON DOMAIN late IS 'dc'; COMMENT ON MATERIALIZED VIEW stored IS 'm'; COMMENT ON SEQUENCE numbered_b_seq IS 'n'; COMMENT ON COLUMN addr.street IS 'in a type'; COMMENT ON ACCESS METHOD heap2 IS 'h';
CREATE TABLE grown (a int DEFAULT 7 CHECK (a > 0), id serial); CREATE TABLE "Grow n" (c text COLLATE "C" DEFAULT 'x, y' NOT NULL, CONSTRAINT mine CHECK (c <> ')')) INHERITS (grown) WITH (fillfactor = 50);
CREATE TABLE grown_too (g numeric(5,2) DEFAULT 3) INHERITS ("Grow n"); ALTER TABLE grown ADD COLUMN b int NOT NULL DEFAULT 5, ADD COLUMN twice int GENERATED ALWAYS AS (a * 2) STORED, ADD CONSTRAINT late CHECK (b < 1000) NOT VALID;
ALTER TABLE "Grow n" ALTER COLUMN a SET DEFAULT 8, ALTER COLUMN c SET STORAGE EXTERNAL; INSERT INTO "Grow n" (c) VALUES ('1'), ('2'); INSERT INTO grown_too (c, g) VALUES ('q', 1.5); COMMENT ON COLUMN grown_too.b IS 'inherited late';
CREATE FOREIGN DATA WRAPPER checked OPTIONS ("no option" 'true', debug 'x'); ALTER FOREIGN DATA WRAPPER checked VALIDATOR postgresql_fdw_validator; CREATE SERVER of_checked FOREIGN DATA WRAPPER checked;
CREATE TYPE owned AS RANGE (subtype = int4); DO $$ BEGIN IF current_setting('server_version_num')::int < 170000 THEN ALTER TYPE owned_multirange OWNER TO torture_reader; GRANT USAGE ON TYPE owned_multirange TO "torture owner"; END IF; END $$; COMMENT ON TYPE owned_multirange IS 'many';
CREATE FUNCTION paired(int, int) RETURNS bool LANGUAGE sql AS 'SELECT true'; CREATE OPERATOR ==== (leftarg = int, rightarg = int, function = paired, commutator = =====, negator = !===); ALTER OPERATOR ===== (int, int) OWNER TO torture_reader;
CREATE OPERATOR #### (leftarg = int, rightarg = int, function = paired, commutator = #####); DROP OPERATOR #### (int, int);
CREATE LANGUAGE handled HANDLER plpgsql_call_handler; CREATE TRUSTED LANGUAGE "Handled too" HANDLER plpgsql_call_handler INLINE plpgsql_inline_handler VALIDATOR plpgsql_validator; COMMENT ON LANGUAGE handled IS 'h'; ALTER LANGUAGE handled OWNER TO torture_reader;

-- What the source has, and a server refuses when it is made anew in the order in which a script can have it.
CREATE SCHEMA code;
CREATE FUNCTION public.base(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT lower(t)$$;
CREATE FUNCTION code.low(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT base(t)$$;
CREATE TABLE code.t (a text, g text GENERATED ALWAYS AS (code.low(a)) STORED, CHECK (code.low(a) <> 'no'));
INSERT INTO code.t VALUES ('Abc'), ('D');
CREATE UNIQUE INDEX ti ON code.t (code.low(a)); COMMENT ON INDEX code.ti IS 'calls what calls something by its name alone';
CREATE FUNCTION of_t() RETURNS bigint LANGUAGE sql STABLE AS $$SELECT count(*) FROM code.t WHERE base(a) = 'abc'$$;
CREATE MATERIALIZED VIEW counted AS SELECT of_t() AS n;
CREATE MATERIALIZED VIEW z_first AS SELECT 5 AS n;
CREATE FUNCTION of_z() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT n FROM public.z_first); END';
CREATE MATERIALIZED VIEW a_second AS SELECT of_z() AS n; CREATE UNIQUE INDEX ON a_second (n);
CREATE TABLE zz_known (id int); INSERT INTO zz_known VALUES (1), (2);
CREATE FUNCTION known(i int) RETURNS bool LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT FROM public.zz_known WHERE id = i)';
CREATE TABLE asking (id int CHECK (known(id))); INSERT INTO asking VALUES (1), (2);

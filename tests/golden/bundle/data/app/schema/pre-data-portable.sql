--
-- PostgreSQL database dump
--

\restrict fjxNQL2WxScchSm2e2hvQ7VCjeUT58ShaPi1n2rlicMa9bXC3EP2IMgTVac6cL9

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: shop; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA shop;


--
-- Name: mood; Type: TYPE; Schema: shop; Owner: -
--

CREATE TYPE shop.mood AS ENUM (
    'sad',
    'happy'
);


SET default_table_access_method = heap;

--
-- Name: Payments; Type: TABLE; Schema: shop; Owner: -
--

CREATE TABLE shop."Payments" (
    id bigint NOT NULL,
    paid timestamp with time zone,
    amount numeric(12,2),
    rate double precision,
    note text,
    tags text[],
    token uuid,
    extra jsonb,
    during tstzrange,
    mood shop.mood,
    raw bytea,
    took interval,
    doubled bigint GENERATED ALWAYS AS ((id * 2)) STORED
);


--
-- Name: nothing; Type: TABLE; Schema: shop; Owner: -
--

CREATE TABLE shop.nothing (
    a integer,
    b text
);


--
-- Name: 4711; Type: BLOB; Schema: -; Owner: -
--

SELECT pg_catalog.lo_create('4711');


--
-- PostgreSQL database dump complete
--

\unrestrict fjxNQL2WxScchSm2e2hvQ7VCjeUT58ShaPi1n2rlicMa9bXC3EP2IMgTVac6cL9


--
-- PostgreSQL database dump
--

\restrict U3cvmEQTUoKZNXwxz4Pc0xy27S9iZKUD8I9AgdQE9JBIU84qoIKZGnQeZys9Uw4

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
-- Name: Payments Payments_pkey; Type: CONSTRAINT; Schema: shop; Owner: postgres
--

ALTER TABLE ONLY shop."Payments"
    ADD CONSTRAINT "Payments_pkey" PRIMARY KEY (id);


--
-- PostgreSQL database dump complete
--

\unrestrict U3cvmEQTUoKZNXwxz4Pc0xy27S9iZKUD8I9AgdQE9JBIU84qoIKZGnQeZys9Uw4


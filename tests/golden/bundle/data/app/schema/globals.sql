--
-- PostgreSQL database cluster dump
--

\restrict 5OzAP5Ux0RqpusMXUYdD5AfEJhjce7NraGpEkp99ldqWbeR8s30waSKwvWqUlbW

SET default_transaction_read_only = off;

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

--
-- Roles
--

CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;

--
-- User Configurations
--






\unrestrict 5OzAP5Ux0RqpusMXUYdD5AfEJhjce7NraGpEkp99ldqWbeR8s30waSKwvWqUlbW

--
-- PostgreSQL database cluster dump complete
--


"""Definitions of a bundle that somebody else has made: what makes no part of a database is refused before it is run."""

import json

import pytest

from migrate.errors import DamageError
from migrate.restore.mysql.definitions.recorded_definitions import _parsed

KEY = "data/shop/schema/definitions.json"


def entries(sql: str) -> bytes:
    return json.dumps([{"kind": "table", "name": "t", "sql": sql}]).encode()


@pytest.mark.parametrize(
    "sql",
    [
        "GRANT ALL ON *.* TO evil",
        "SELECT 'x' INTO OUTFILE '/tmp/x'",
        "SET GLOBAL general_log_file = '/tmp/x'",
        "/*!50001 CREATE TABLE t (a int) */",
        "CREATE USER evil",
        "create or replace user evil",
        "CREATE /**/ USER evil",
        "CREATE OR/**/REPLACE USER evil",
        "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'evil')",
        "CREATE FUNCTION f RETURNS STRING SONAME 'evil.so'",
        "CREATE AGGREGATE FUNCTION f RETURNS int soname 'evil.so'",
        "CREATE FUNCTION f RETURNS/**/STRING/**/SONAME 'evil.so'",
        "CREATE FUNCTION f /*(*/ RETURNS STRING /*!50000SONAME*/ 'evil.so'",
        "CREATE DEFINER=`a`@`%` FUNCTION f RETURNS STRING SONAME 'evil.so'",
        "CREATE DEFINER=`a`@`%`/**/FUNCTION f RETURNS STRING SONAME 'evil.so'",
    ],
)
def test_what_makes_no_part_of_a_database_is_damage(sql):
    with pytest.raises(DamageError, match="a part of a database in entry 1"):
        _parsed(entries(sql), KEY)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE `t` (a int)",
        "CREATE OR REPLACE VIEW `v` AS SELECT 1",
        "CREATE ALGORITHM=UNDEFINED DEFINER=`a`@`%` SQL SECURITY DEFINER VIEW `v` AS SELECT 1",
        "CREATE DEFINER=`a`@`%` FUNCTION `f`() RETURNS int RETURN 1",
        "CREATE DEFINER=`a`@`%` PACKAGE BODY `p` AS END",
        "CREATE AGGREGATE FUNCTION `f`(x int) RETURNS int RETURN 1",
        "CREATE JSON RELATIONAL DUALITY VIEW `v` AS SELECT 1",
        "CREATE SPATIAL REFERENCE SYSTEM IF NOT EXISTS 40000 NAME 'x'",
        "CREATE SEQUENCE `s`",
        "CREATE TABLE `t` (a int COMMENT 'a library: RETURNS INT SONAME')",
        "CREATE DEFINER=`a`@`%` PROCEDURE `p`() SELECT 'CREATE FUNCTION f RETURNS INT SONAME'",
        "CREATE DEFINER=`a`@`%` FUNCTION `f`() RETURNS int RETURN 1 -- it was RETURNS INT SONAME",
    ],
)
def test_what_a_server_prints_is_taken(sql):
    assert _parsed(entries(sql), KEY)[0]["sql"] == sql

"""Definitions of a bundle that somebody else has made: what makes no part of a database is refused before it is run."""

import json

import pytest

from migrate.errors import DamageError
from migrate.restore.mysql.definitions.accounts import Grants
from migrate.restore.mysql.definitions.recorded_definitions import _parsed, of_any_database

KEY = "data/shop/schema/definitions.json"


DATABASE = {"kind": "database", "name": "", "charset": "utf8mb4", "collation": "utf8mb4_bin"}


def parsed(*entries: dict[str, str], database: str = "shop") -> list[dict[str, str]]:
    return _parsed(json.dumps([DATABASE, *entries]).encode(), KEY, database)[1:]


def entry(kind: str, name: str, sql: str) -> dict[str, str]:
    more = {"sequence": {"next": 1, "rounds": 0}, "trigger": {"table": "t"}}.get(kind, {})
    return {"kind": kind, "name": name, "sql": sql, **more}


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        ("table", "GRANT ALL ON *.* TO evil"),
        ("table", "SELECT 'x' INTO OUTFILE '/tmp/x'"),
        ("table", "SET GLOBAL general_log_file = '/tmp/x'"),
        ("table", "/*!50001 CREATE TABLE x (a int) */"),
        ("table", "CREATE TABLE `x` SELECT * FROM mysql.user"),
        ("table", "CREATE TABLE shop.x (a int)"),
        ("table", "CREATE TABLE /**/`live`/**/./**/`x` (a int)"),
        ("table", "CREATE OR REPLACE TABLE `x` (a int)"),
        ("table", "CREATE TABLE `users` (a int)"),
        ("table", "CREATE VIEW `x` AS SELECT * FROM live.users"),
        ("view", "CREATE OR REPLACE VIEW `live`.`x` AS SELECT 1"),
        ("view", "CREATE VIEW `live`.`x` AS SELECT 1"),
        ("trigger", "CREATE TRIGGER live.x BEFORE INSERT ON live.t FOR EACH ROW SET @a = 1"),
        ("trigger", "CREATE TRIGGER \udcc3.x BEFORE INSERT ON live.t FOR EACH ROW SET @a = 1"),
        ("procedure", "CREATE PROCEDURE live.x() SELECT 1"),
        ("event", "CREATE EVENT live.x ON SCHEDULE EVERY 1 DAY DO SELECT 1"),
        ("event", "CREATE USER evil"),
        ("user", "CREATE USER x"),
        ("view", "create or replace user evil"),
        ("view", "CREATE /**/ USER evil /**/ VIEW x"),
        ("table", "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'evil')"),
        ("function", "CREATE FUNCTION x RETURNS STRING SONAME 'evil.so'"),
        ("function", "CREATE AGGREGATE FUNCTION x RETURNS int soname 'evil.so'"),
        ("function", "CREATE FUNCTION x /*(*/ RETURNS STRING /*!50000SONAME*/ 'evil.so'"),
        ("function", "CREATE DEFINER=`a`@`%`/**/FUNCTION x RETURNS STRING SONAME 'evil.so'"),
        ("procedure", f"CREATE {'/**/' * 100}"),
    ],
)
def test_what_makes_something_else_is_damage(kind, sql):
    with pytest.raises(DamageError, match=f"what makes {kind} x in entry 2"):
        parsed(entry(kind, "x", sql))


@pytest.mark.parametrize(
    ("kind", "name", "sql"),
    [
        ("table", "t", "CREATE TABLE `t` (a int)"),
        ("table", "a`b", "CREATE TABLE `a``b` (\n  `a` int COMMENT 'a library: RETURNS INT SONAME')"),
        (
            "view",
            "v",
            "CREATE ALGORITHM=UNDEFINED DEFINER=`a`@`%` SQL SECURITY DEFINER VIEW `v` AS select 1 AS `1`",
        ),
        (
            "view",
            "v",
            "CREATE ALGORITHM=MERGE DEFINER=`a` SQL SECURITY INVOKER VIEW `shop`.`v` AS select 1 AS `1`",
        ),
        ("view", "v", "CREATE JSON RELATIONAL DUALITY VIEW `v` AS SELECT 1"),
        (
            "function",
            "f",
            "CREATE DEFINER=`a`@`%` FUNCTION `f`() RETURNS int RETURN 1 -- it was RETURNS INT SONAME",
        ),
        ("function", "f", "CREATE DEFINER=`a`@`%` AGGREGATE FUNCTION `f`(x int) RETURNS int RETURN 1"),
        ("package body", "p", 'CREATE DEFINER="a"@"%" PACKAGE BODY "p" AS END'),
        ("spatial reference system", "40000", "CREATE SPATIAL REFERENCE SYSTEM IF NOT EXISTS 40000 NAME 'x'"),
        ("sequence", "s", "CREATE SEQUENCE `s` start with 1"),
        ("library", "l", "CREATE LIBRARY `l`\n    LANGUAGE JAVASCRIPT AS $$ $$"),
        ("event", "e", "CREATE DEFINER=`a`@`%` EVENT `e` ON SCHEDULE EVERY 1 YEAR DO SELECT 1"),
        (
            "trigger",
            "t\u00e4",
            "CREATE DEFINER=`a`@`%` trigger t\udcc3\udca4 before insert on t for each row set @a=1",
        ),
        (
            "trigger",
            "t",
            "CREATE DEFINER=`a`@`%` trigger /* My */ -- x\n t # y\n before insert on t for each row begin end",
        ),
    ],
)
def test_what_a_server_prints_is_taken(kind, name, sql):
    (definition,) = parsed(entry(kind, name, sql))
    assert definition["sql"] == sql
    assert of_any_database(definition)["sql"] == sql


@pytest.mark.parametrize(
    "typed",
    [
        "trigger shop.t before insert on shop.`u` for",
        'TRIGGER IF NOT EXISTS "shop" . t BEFORE INSERT ON /**/ shop . `u` FOR',
    ],
)
def test_a_trigger_is_made_in_the_database_that_is_restored_to(typed):
    (definition,) = parsed(
        entry("trigger", "t", f"CREATE DEFINER=`a`@`%` {typed} each row set @a = 'shop.t'")
    )
    made = of_any_database(definition)["sql"]
    assert made.lower().replace("/**/ ", "").replace("if not exists ", "") == (
        "create definer=`a`@`%` trigger t before insert on `u` for each row set @a = 'shop.t'"
    )


@pytest.mark.parametrize("name", ["client", "connection", "database_collation"])
def test_a_charset_is_a_name_and_no_part_of_a_statement(name):
    """They stand in SET and ALTER as they are: ``utf8mb4, GLOBAL general_log = 1`` changed the server."""
    view = entry("view", "v", "CREATE VIEW `v` AS select 1") | {name: "utf8mb4, GLOBAL general_log = 1"}
    with pytest.raises(DamageError, match=name):
        parsed(view)


def test_a_definition_that_is_there_twice_is_damage():
    table = entry("table", "t", "CREATE TABLE `t` (a int)")
    with pytest.raises(DamageError, match="table t 2 times"):
        parsed(table, table)


def test_definitions_begin_with_those_of_the_database():
    with pytest.raises(DamageError, match="the database's own definition in entry 1"):
        _parsed(b"[]", KEY)


@pytest.mark.parametrize(
    "line",
    [
        "GRANT ALL PRIVILEGES ON *.* TO `evil`@`%` IDENTIFIED BY 'known' -- x ON `shop`.* TO `a`@`%`;",
        """GRANT SELECT ON `shop`.* TO 'x\\'@' IDENTIFIED BY "known" -- ';""",
        """GRANT SELECT ON *.* TO 'x\\'@' IDENTIFIED BY "known" -- ';""",
        """ALTER USER `a`@`%` REQUIRE ISSUER 'x\\' AND SUBJECT ' IDENTIFIED BY "known" -- ';""",
    ],
)
def test_a_statement_about_accounts_brings_no_password(line):
    """It was run as it stands: what looks like a privilege or a name went on behind it, up to a comment."""
    grants = Grants.parse(line, "shop")
    assert (grants.own, grants.server_wide, grants.accounts) == ([], [], [])


@pytest.mark.parametrize(
    "what",
    [
        "ALL PRIVILEGES",
        "SELECT, INSERT (`a`, `b``c`), UPDATE (plain), DELETE HISTORY, SHOW VIEW",
        "SELECT (`a`), REFERENCES (`b`)",
        "EXECUTE",
    ],
)
@pytest.mark.parametrize("account", ["`a`@`%`", "'it''s'@'%'", "'b\\\\'@'%'", "`role`", "PUBLIC"])
def test_privileges_are_taken_as_servers_print_them(what, account):
    (grant,) = Grants.parse(f"GRANT {what} ON `shop`.* TO {account} WITH GRANT OPTION;", "shop").own
    assert (grant.what, grant.account) == (what, account)

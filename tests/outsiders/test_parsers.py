"""The suites' scripts and dumps are read as psql, sqllogictest and pg_dump mean them."""

import sqlite3

import pytest

from scripts.outsiders import mariadb_suite
from scripts.outsiders.debian import upstream_version, with_sources
from scripts.outsiders.postgresql.compare import Difference, compare_entries, read_entries
from scripts.outsiders.postgresql.dump import read_statements
from scripts.outsiders.postgresql.move import is_reported
from scripts.outsiders.program import Outcome
from scripts.outsiders.psql_script import cuts, split_script, without_drops
from scripts.outsiders.sqllogictest import answer, read_records

SCRIPT = r"""-- a comment; with a semicolon /* and the beginning of another
\set name 'a;b'
CREATE TABLE t (a text DEFAULT ';', "b;" int);
/* DROP TABLE t; /* nested */ still a comment; */
CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $body$ BEGIN DROP TABLE x; RETURN '$$;'; END $body$;
CREATE FUNCTION g(int) RETURNS int BEGIN ATOMIC SELECT CASE $1 WHEN 1 THEN 2 END; SELECT 3; END;
CREATE RULE r AS ON INSERT TO t DO (NOTIFY one; NOTIFY two);
COPY t FROM stdin;
DROP TABLE is data
\.
COPY missing FROM stdin;
SELECT 1 \gset
SELECT E'it\'s;' \; SELECT 2;
-- gone
DROP TABLE t; DROP FUNCTION f();
ALTER TABLE t DROP COLUMN a;
DROP EVENT TRIGGER e;
BEGIN;
DROP VIEW v
"""


def test_a_script_for_psql_is_cut_into_its_statements():
    pieces = split_script(SCRIPT)
    assert "".join(pieces) == SCRIPT
    first_lines = [
        next(line for line in piece.splitlines() if not line.startswith(("--", "/*"))) for piece in pieces
    ]
    assert [" ".join(line.split()[:2]) for line in first_lines] == [
        *["\\set name", "CREATE TABLE", "CREATE FUNCTION", "CREATE FUNCTION", "CREATE RULE", "COPY t"],
        *["COPY missing", "SELECT 1", "SELECT E'it\\'s;'", "DROP TABLE", "DROP FUNCTION", "ALTER TABLE"],
        *["DROP EVENT", "BEGIN;", "DROP VIEW"],
    ]


def test_drops_are_removed_from_a_script_and_cut_points_lie_before_them():
    left = without_drops(SCRIPT)
    assert [line for line in left.splitlines() if "DROP" in line] == [
        "/* DROP TABLE t; /* nested */ still a comment; */",
        "CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $body$ BEGIN DROP TABLE x; RETURN '$$;'; END $body$;",
        "DROP TABLE is data",
        "ALTER TABLE t DROP COLUMN a;",
        "DROP EVENT TRIGGER e;",
    ]
    pieces = split_script(SCRIPT)
    assert [pieces[cut].strip().splitlines()[-1] for cut in cuts(pieces)] == ["DROP TABLE t;", "DROP VIEW v"]


def entry(name, body, kind="TABLE", schema="s"):
    return f"--\n-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: me\n--\n\n{body}\n\n\n"


def test_entries_of_dumps_are_compared_by_name_wherever_they_stand():
    ours = "SET x = 1;\n" + entry("a", "CREATE TABLE s.a ();") + entry("b", "CREATE TABLE s.b (x int);")
    ours += entry("TABLE a", "GRANT one;\nGRANT two;", "ACL") + entry("c", "CREATE TABLE s.c ();")
    theirs = entry("b", "CREATE TABLE s.b (x text);") + entry("a", "CREATE TABLE s.a ();")
    theirs += entry("TABLE a", "GRANT two;\nGRANT one;", "ACL") + entry("d", "CREATE TABLE s.d ();")
    ends = "--\n-- PostgreSQL database dump complete\n--\n"
    differences = compare_entries(read_entries(ours + ends), read_entries(theirs + ends))
    assert {(one.name, one.detail.split(":")[0]) for one in differences} == {
        *[("s.b", "differs"), ("s.c", "missing"), ("s.d", "only in the copy")]
    }
    assert read_entries("-- nothing\n") == []


@pytest.mark.parametrize(
    ("kind", "name", "line", "reported"),
    [
        ("FUNCTION", 's.f(integer, "My type")', 'left out: FUNCTION "s"."f"(integer): refused', True),
        ("COMMENT", "-.SUBSCRIPTION sub1", "app: subscription sub1 does not leave", True),
        ("ROWS", '"s"."t"', '"s"."t2" is a gap', False),
        (
            "EXTENSION MEMBER",
            'x: operator "s".===(int4,int4)',
            "operator s.===(int4,int4) of extension x",
            True,
        ),
        ("EXTENSION MEMBER", "x: function f()", "left out: EXTENSION x: not available", True),
        (
            "USER MAPPING",
            "-.USER MAPPING me SERVER far",
            "user mapping for me on foreign server far option",
            True,
        ),
        ("ROWS", '"s"."odd.name"', "gap: s.odd.name", True),
        ("CHECK CONSTRAINT", "s.t t_a_check", "the check of existing rows of t_a_check", True),
        ("CHECK CONSTRAINT", "s.t t_a_check", "the check of existing rows of t_a_check1", False),
        ("TRIGGER", "s.t t_a", "the column t_a of s.u", False),
    ],
)
def test_a_difference_is_reported_where_a_line_has_its_name(kind, name, line, reported):
    assert is_reported(Difference(kind, name, "missing"), ["other", line]) is reported


def test_a_repeated_command_reports_the_same_where_only_times_and_counts_differ():
    def outcome(exit_code, **entry):
        return Outcome((), exit_code, "", "", 1.0, {"restored": [{"source": "app", **entry}]})

    first = outcome(3, left_out=["VIEW v"], seconds=9, rows=7)
    assert first.essence == outcome(3, left_out=["VIEW v"], seconds=2, rows=0).essence
    assert first.essence != outcome(3, left_out=[], seconds=9, rows=7).essence
    assert first.essence != outcome(0, left_out=["VIEW v"], seconds=9, rows=7).essence


def test_statements_of_a_perl_test_come_in_its_order():
    script = """
\t'second' => {
\t\tcreate_order => 7,
\t\tcreate_sql   => 'CREATE TABLE b (x text DEFAULT \\'it\\');',
\t\tregexp => qr/^x/m,
\t},
\t'elsewhere' => {
\t\tdatabase => 'other',
\t\tcreate_sql => 'CREATE TABLE no ();',
\t\tregexp => qr/^x/m,
\t},
\t'first' => {
\t\tcreate_order => 3,
\t\tcreate_sql =>
\t\t  'CREATE TABLE a ('
\t\t  . "x\\ty);",
\t\tregexp => qr/^x/m,
\t},
\t'last' => {
\t\tcreate_sql => q(CREATE TABLE c (x int)),
\t\tlike => {},
\t},
"""
    assert read_statements(script) == [
        *["CREATE TABLE a (x\ty);", "CREATE TABLE b (x text DEFAULT 'it');", "CREATE TABLE c (x int)"]
    ]


def test_a_test_of_sqllogictest_is_read_and_answered_in_its_format():
    text = """# a comment
hash-threshold 4

statement ok
CREATE TABLE t(a, b)

onlyif mysql
statement ok
NOT FOR SQLITE

skipif mysql
statement ok
INSERT INTO t VALUES (2, 'x'), (1, NULL), (1.5, char(1))

statement error
SELEC

query IT rowsort label-1
SELECT a, b
FROM t WHERE a < 2
----
1
NULL

query R valuesort
SELECT a FROM t
----
1.000

query I nosort
SELECT a FROM t UNION ALL SELECT a FROM t
----
6 values hashing to 0

halt

statement ok
NEVER
"""
    records = list(read_records(text))
    assert [record.sql.split()[0] for record in records] == ["CREATE", "INSERT", "SELEC", *["SELECT"] * 3]
    database = sqlite3.connect(":memory:")
    answers = [answer(database, record) for record in records]
    database.close()
    assert answers[2][0].startswith("error: ")
    assert answers[3] == ["1", "@", "1", "NULL"]
    assert answers[4] == ["1.000", "1.500", "2.000"]
    assert answers[5][0].startswith("6 values hashing to ")


def test_package_sources_get_their_source_packages():
    assert (
        with_sources("deb http://x y main\n# deb no\n")
        == "deb http://x y main\ndeb-src http://x y main\n# deb no\n"
    )
    assert with_sources("Types: deb\nURIs: http://x\n") == "Types: deb deb-src\nURIs: http://x\n"
    assert upstream_version("1:10.11.18-0+deb12u1") == "10.11.18"
    assert upstream_version("15.18-0+deb12u1") == "15.18"


MARIADB_SCRIPT = """--source include/have_innodb.inc
create table t1 (a int); drop table if exists t1, test.`t 2`, other.t3 ;
DROP VIEW v1;
drop temporary table t4;
delimiter |;
create procedure p() begin select 1; end|
drop procedure p|
delimiter ;|
eval drop table $name;
use test;
select * from test.t1 where table_schema = 'test' and latest.x = 1;
"""


def test_a_test_of_mariadb_keeps_what_it_drops():
    assert mariadb_suite.without_drops(MARIADB_SCRIPT).splitlines()[1:9] == [
        "create table t1 (a int);",
        "rename table if exists `t1` to `t1__1`;",
        "rename table if exists `other`.`t3` to `other`.`t3__2`;",
        "",
        "do 0;",
        "drop temporary table t4;",
        "delimiter |;",
        "create procedure p() begin select 1; end|",
    ]


def test_views_of_a_test_of_mariadb_keep_their_tables():
    script = "create view v1 as select * from t1; drop table t1;"
    assert mariadb_suite.without_drops(script) == "create view v1 as select * from t1;\ndo 0;"


def test_a_test_of_mariadb_uses_another_database():
    script = mariadb_suite.in_database(MARIADB_SCRIPT, "t_one")
    assert "use t_one;" in script
    assert "t_one.t1 where table_schema = 't_one' and latest.x" in script


@pytest.mark.parametrize(
    ("script", "alone"),
    [
        (MARIADB_SCRIPT, True),
        ("--exec $MYSQL_DUMP test", False),
        ("source include/restart_mysqld.inc;", False),
        ("--source include/have_debug.inc", False),
        ("select 'executed'; execute stmt;", True),
    ],
)
def test_a_test_of_mariadb_that_needs_more_than_a_server_is_left_out(script, alone):
    assert mariadb_suite.runs_alone(script) is alone

"""A second restore brings what the bundle lacked when the first one was made; it is killed, and repeated."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import call
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgresql
from tests.restore.killed import killed, restore, spread

POSTGRES = """
CREATE TABLE kept AS SELECT 1 AS x;
CREATE TABLE late (x int PRIMARY KEY, t text); INSERT INTO late SELECT n, md5(n::text) FROM generate_series(1, 500) n;
CREATE TABLE "odd, ""late" AS SELECT 1 AS x;
DO $$ BEGIN FOR n IN 1..45 LOOP
  EXECUTE format('CREATE TABLE %I (x int)', left(md5(n::text) || md5(n::text || 'b'), 60)); END LOOP; END $$;
CREATE TABLE child (x int REFERENCES late); INSERT INTO child VALUES (2);
CREATE TABLE hidden (x serial PRIMARY KEY); INSERT INTO hidden SELECT FROM generate_series(1, 500);
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
CREATE VIEW v AS SELECT x FROM late; COMMENT ON VIEW v IS 'of late';
CREATE MATERIALIZED VIEW m AS SELECT x FROM late; CREATE INDEX ON m (x);
CREATE FUNCTION tight(int) RETURNS bool LEAKPROOF LANGUAGE sql AS 'SELECT true';
CREATE ROLE second_reader LOGIN PASSWORD 'second'; GRANT SELECT ON kept, child, hidden, hidden_x_seq, m TO second_reader
"""
MARIADB = """
CREATE TABLE kept AS SELECT 1 AS x;
CREATE TABLE late (x INT PRIMARY KEY, t TEXT); INSERT INTO late SELECT seq, MD5(seq) FROM seq_1_to_500;
CREATE TABLE `odd, "late` AS SELECT 1 AS x;
CREATE TABLE hidden (x INT PRIMARY KEY); INSERT INTO hidden SELECT seq FROM seq_1_to_500;
CREATE TABLE gone (x INT); CREATE VIEW broken AS SELECT x FROM gone; DROP TABLE gone;
CREATE VIEW v AS SELECT x FROM late;
CREATE USER second_reader IDENTIFIED BY 'second'; GRANT SELECT, SHOW VIEW ON {name}.kept TO second_reader;
GRANT SELECT, SHOW VIEW ON {name}.v TO second_reader; GRANT SELECT, SHOW VIEW ON {name}.broken TO second_reader;
GRANT INSERT ON {name}.hidden TO second_reader
"""
LEFT_OUT = {"postgres": ["FUNCTION public.tight(integer)"], "mariadb": ["view `broken`"]}


@dataclass(frozen=True)
class Scenario:
    """The two bundles of a source, the second of which has what the first lacks, and destinations for them."""

    kind: str
    server: object
    first: Path
    middle: Path
    second: Path

    def destination(self, bundle: Path | None = None) -> str:
        """Return a database that was restored from the first bundle, or another one."""
        url = self.empty_destination()
        assert not restore(bundle or self.first, url).findings
        return url

    def copy(self, url: str) -> str:
        """Return another database like one that was restored from the first bundle."""
        if self.kind == "mariadb":
            return self.destination()
        name, copied = self.server.database().rpartition("/")[2], url.rpartition("/")[2]
        for statement in (
            f"DROP DATABASE {name}",
            f"CREATE DATABASE {name} TEMPLATE {copied} OWNER second_tenant",
        ):
            postgresql.run_sql(self.server.url, statement)
        return url.replace(copied, name)

    def empty_destination(self) -> str:
        """Return an empty database, of a role that may make no leakproof function."""
        url = self.server.database()
        if self.kind == "postgres":
            name = url.rpartition("/")[2]
            postgresql.run_sql(
                url,
                f"ALTER DATABASE {name} OWNER TO second_tenant; ALTER SCHEMA public OWNER TO second_tenant;"
                " GRANT SET ON PARAMETER session_replication_role TO second_tenant",
            )
            return postgresql.as_role(url, "second_tenant")
        return url

    def content(self, url: str) -> object:
        """Return what a destination has, without moveout."""
        if self.kind == "mariadb":
            sums = {
                name: sum_ for name, sum_ in mysql.checksums(url).items() if not name.startswith("moveout_")
            }
            return [made["sql"] for made in mysql.definitions(url) if made["kind"] != "database"], sums
        rows = (
            "SELECT (SELECT count(*) FROM late), (SELECT sum(x) FROM hidden), (SELECT max(x) FROM v),"
            " (SELECT count(*) FROM m), nextval('hidden_x_seq'), obj_description('v'::regclass),"
            " (SELECT count(*) FROM pg_constraint WHERE contype IN ('f', 'p') AND convalidated),"
            " (SELECT count(*) FROM pg_index WHERE indisvalid AND indrelid::regclass::text IN ('m', 'late', 'hidden')),"
            " (SELECT count(*) FROM pg_tables WHERE schemaname IN ('moveout_restore', 'public'))"
        )
        return postgresql.fetch(url.replace("second_tenant@", "postgres@"), rows)


@pytest.fixture(scope="module", params=[pytest.param("postgres", marks=pytest.mark.torture), "mariadb"])
def scenario(request, tmp_path_factory):
    kind, folder = request.param, tmp_path_factory.mktemp("second")
    source_server, server = request.getfixturevalue(kind), request.getfixturevalue(f"other_{kind}")
    url = source_server.database()
    name = url.rpartition("/")[2]
    engine = postgresql if kind == "postgres" else mysql
    engine.run_sql(url, POSTGRES if kind == "postgres" else MARIADB.format(name=name))
    environment = {"PGPASSWORD": "second", "PGPASSFILE": "/dev/null", "MYSQL_PWD": "second"}
    reader_url = re.sub(r"//\w+@", "//second_reader@", url)
    export = ("export", f"app={reader_url}", "--to", folder / "second")
    assert call(*export, env=environment).code == 3
    shutil.copytree(folder / "second", folder / "first")
    if kind == "postgres":
        engine.run_sql(url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO second_reader")
    else:
        engine.run_sql(
            url,
            "".join(
                f"GRANT SELECT ON {name}.{table} TO second_reader;" for table in ("late", '`odd, "late`')
            ),
        )
    assert call(*export, env=environment).code == 3
    shutil.copytree(folder / "second", folder / "middle")
    if kind == "postgres":
        engine.run_sql(url, "ALTER TABLE hidden DISABLE ROW LEVEL SECURITY")
        engine.run_sql(server.url, f"CREATE ROLE second_tenant LOGIN PASSWORD '{server.password}'")
    else:
        engine.run_sql(url, f"GRANT SELECT ON {name}.hidden TO second_reader")
    exported = call(*export, env=environment)
    assert exported.code == 0, exported
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENANT", server.password)
        yield Scenario(kind, server, folder / "first", folder / "middle", folder / "second")


@pytest.fixture(scope="module")
def expected(scenario):
    """What a second restore leaves out that nothing interrupts, and what the destination has then."""
    url = scenario.destination()
    outcome = restore(scenario.second, url)
    assert outcome.findings == ()
    assert named(outcome) == LEFT_OUT[scenario.kind]
    return named(outcome), scenario.content(url)


def named(outcome) -> list[str]:
    return sorted(sentence.partition(":")[0] for sentence in outcome.left_out)


def check_again(scenario, url, expected, what) -> None:
    again = restore(scenario.second, url)
    assert (again.findings, named(again)) == ((), expected[0]), what
    assert named(restore(scenario.second, url)) == expected[0], what
    assert scenario.content(url) == expected[1], what


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_it_is_killed_before_statements_all_over_it(scenario, expected, tmp_path):
    first = scenario.destination()
    numbers = spread(scenario.second, scenario.copy(first), tmp_path, cases=8)
    kills = 0
    for number in numbers:
        url = scenario.copy(first)
        kills += killed(scenario.second, url, number)
        check_again(scenario, url, expected, number)
    assert kills >= len(numbers) - 2, "threads make statements in no fixed order, but as many of them"


ROWS_OF = r"COPY [^(]*\b{0}\b|done. VALUES \(.*{0}"


@pytest.mark.torture
def test_it_is_killed_and_repeated(scenario, expected):
    """Among the rows of a new table; or, where the first one lacked only these, of a table that had come up empty."""
    for bundle, table in ((scenario.first, "late"), (scenario.middle, "hidden")):
        url = scenario.destination(bundle)
        assert killed(scenario.second, url, pattern=ROWS_OF.format(table))
        check_again(scenario, url, expected, table)


def test_the_first_one_is_killed_and_the_second_one_goes_on(scenario, expected):
    url = scenario.empty_destination()
    assert killed(scenario.first, url, pattern="child" if scenario.kind == "postgres" else "kept")
    check_again(scenario, url, expected, "the first one")

"""MariaDB's own test suite: the databases that its scripts make, moved."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import pymysql

from scripts.binaries import cache_dir, only_one
from scripts.mariadb import USER, MariadbServer, find_mariadb
from scripts.outsiders.debian import fetch_package
from scripts.outsiders.mariadb_compare import Item, differences
from scripts.outsiders.program import Outcome, Program
from scripts.outsiders.suite import Context, Skipped, SuiteRow
from scripts.process import ServerError

_DROP = re.compile(
    r"(?P<before>^|;)(?P<space>[ \t]*)drop[ \t]+(?P<kind>tables?|view|sequence|procedure|function|trigger|event"
    r"|database|schema|package(?:[ \t]+body)?)[ \t]+(?P<names>[^;|]*?)(?P<end>;|\|)",
    re.IGNORECASE | re.MULTILINE,
)
_RENAMED = frozenset({"table", "tables", "sequence"})
_VIEW = re.compile(r"create\b[^;]*\bview\b", re.IGNORECASE)
_NAME = re.compile(r"(?:(?P<database>\w+)\.)?(?P<name>\w+)")
_OF_NAMES = re.compile(r"^if exists\s+|\s+(?:cascade|restrict|wait \d+|nowait)$", re.IGNORECASE)
_COMMENT = re.compile(r"^\s*(?:#|--\s*echo).*$", re.MULTILINE)
_NEEDS_MORE = re.compile(
    r"restart_mysqld|restart_parameters|shutdown_(?:server|mysqld)|^\s*(?:--\s*)?shutdown|(?:kill|start)_mysqld"
    r"|^\s*(?:--\s*)?(?:perl|exec)\b|have_(?:debug|rpl|wsrep|binlog)|big_test|master-slave|wait_until_|expect_crash"
    r"|install (?:plugin|soname)|have_\w*(?:archive|connect|spider|rocksdb|oqgraph|federated)|debug_(?:dbug|sync)"
    r"|global (?:read_only|max_connections|max_user_connections|innodb_force|innodb_read_only)",
    re.IGNORECASE | re.MULTILINE,
)
_TEST = re.compile(r"(?<![\w$/])test(?=\.[\w`*])|(?<=\buse )test\b|(?<=['\"`])test(?=['\"`])", re.IGNORECASE)


_PACKAGES = ("mariadb-test", "mariadb-test-data", "libpcre2-posix3")
_LOCATIONS = ("main", "suite/innodb/t")
_BATCH = 12
_TEST_SECONDS = 20
_BATCH_SECONDS = 60.0
"""About so long a batch takes; a run with less time left begins none."""
_SYSTEM = {"mysql", "information_schema", "performance_schema", "sys"}
_ROOT_ACCOUNTS = (
    "SET PASSWORD FOR root@localhost = ''",
    "CREATE USER IF NOT EXISTS root@'127.0.0.1'",
    "GRANT ALL PRIVILEGES ON *.* TO root@'127.0.0.1' WITH GRANT OPTION",
    "SET GLOBAL log_bin_trust_function_creators = 1",
)


class MariadbSuite:
    """Databases of MariaDB's tests ``main`` and ``innodb``, whose DROPs are renames."""

    name = "mariadb-suite"
    origin = "MariaDB's test suite, from the Debian packages mariadb-test and mariadb-test-data"

    def obtain(self) -> Path | Skipped:
        """Return one tree of the packages, of the version of the server in use where it can be had."""
        try:
            version = _version(find_mariadb())
        except ServerError as error:
            return Skipped(str(error))
        trees = []
        for package in _PACKAGES:
            tree = fetch_package(package, version)
            if isinstance(tree, Skipped):
                return tree
            trees.append(tree)
        merged = cache_dir() / "outsiders" / f"mariadb-suite-{trees[0].name}"
        with only_one("outsiders-mariadb-suite"):
            if not merged.exists():
                scratch = merged.with_name(f"{merged.name}.new")
                shutil.rmtree(scratch, ignore_errors=True)
                for tree in trees:
                    shutil.copytree(tree, scratch, symlinks=True, dirs_exist_ok=True)
                scratch.rename(merged)
        return merged

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Move the databases of this run's tests, some tests at a time."""
        yield SuiteRow("MySQL's own tests", skipped="no package has them")
        home = context.material / "usr/share/mysql/mysql-test"
        tests = [path for location in _LOCATIONS for path in sorted((home / location).glob("*.test"))]
        chosen = context.choose([path for path in tests if runs_alone(_text(path))])
        for number in range(0, len(chosen), _BATCH):
            left = context.seconds_left
            if left is not None and left < _BATCH_SECONDS:
                return
            yield _Batch(context, number // _BATCH + 1, chosen[number : number + _BATCH]).move()


def _version(program: Path) -> str:
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"\d+\.\d+\.\d+", output)
    return match[0] if match else ""


def _text(path: Path) -> str:
    return path.read_text("latin-1")


@dataclass(frozen=True, slots=True)
class _Difference:
    """What differs in one database, and both sides of it."""

    database: str
    item: Item
    sides: str

    def __str__(self) -> str:
        return f"{self.database}: {self.item}: {self.sides}"


class _Batch:
    """Some tests, each in a database of its own on one server, moved to another server."""

    def __init__(self, context: Context, number: int, tests: Sequence[Path]) -> None:
        self._context, self._tests = context, tests
        self._label = f"batch-{number}"
        self._row = SuiteRow(tests[0].stem)
        self._objects = 0
        self._home = context.material / "usr/share/mysql/mysql-test"

    def move(self) -> SuiteRow:
        """Run the tests, move what they leave, and compare."""
        servers = self._context.servers
        source = servers.mariadb(f"source-{self._label}")
        destination = servers.mariadb(f"destination-{self._label}")
        try:
            for server in (source, destination):
                execute(server, *_ROOT_ACCOUNTS)
            for test in self._tests:
                self._run_test(source, test)
            _settle(source)
            databases = _databases(source)
            program = Program.for_servers(servers, self._context.scratch / self._label)
            self._move_all(program, source, destination, databases)
            shutil.rmtree(program.directory)
        finally:
            for server in (source, destination):
                server.child.stop()
                shutil.rmtree(server.directory, ignore_errors=True)
        self._row.variant = f"{self._tests[0].stem} … ({len(self._tests)} tests, {self._objects} objects)"
        return self._row

    def _run_test(self, server: MariadbServer, test: Path) -> None:
        database = re.sub(r"\W", "_", f"t_{test.stem}")[:48]
        execute(server, f"CREATE DATABASE IF NOT EXISTS `{database}`")
        files = self._context.scratch / f"{self._label}-{test.stem}"
        for name in ("tmp", "log"):
            (files / name).mkdir(parents=True, exist_ok=True)
        script = files / "script.test"
        text = in_database(without_drops(_text(test)), database)
        script.write_text(
            f"--disable_abort_on_error\n--disable_result_log\n--disable_query_log\n{text}", "latin-1"
        )
        socket = str(server.directory / "socket")
        argv: list[str | Path] = [
            self._context.material / "usr/bin/mariadb-test",
            "--no-defaults",
            "--silent",
            "--user=root",
            f"--socket={socket}",
            f"--database={database}",
            f"--basedir={self._home}",
            f"--tmpdir={files / 'tmp'}",
            f"--logdir={files / 'log'}",
            f"--test-file={script}",
            f"--result-file={files / 'result'}",
            "--record",
        ]
        libraries = self._context.material / "usr/lib/x86_64-linux-gnu"
        variables = {
            "MYSQL_PWD": "",
            "LD_LIBRARY_PATH": str(libraries),
            "MYSQL_TEST_DIR": str(self._home),
            "MYSQLTEST_VARDIR": str(files),
            "MYSQL_TMP_DIR": str(files / "tmp"),
            "MASTER_MYPORT": str(server.port),
            "MASTER_MYSOCK": socket,
        }
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                argv,
                cwd=self._home,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                timeout=_TEST_SECONDS,
            )
        shutil.rmtree(files, ignore_errors=True)

    def _move_all(
        self, program: Program, source: MariadbServer, destination: MariadbServer, databases: Sequence[str]
    ) -> None:
        """Move all databases as one bundle; where that fails, each as its own, so that one does not hide others."""
        for database in databases:
            make_empty(destination, database)
        pairs = [f"{_name(number)}={{}}" for number, _ in enumerate(databases)]
        names = [quote(database, safe="") for database in databases]
        sources = [pair.format(source.url_of(name)) for pair, name in zip(pairs, names, strict=True)]
        destinations = [
            pair.format(destination.url_of(name)) for pair, name in zip(pairs, names, strict=True)
        ]
        exported = program.run("export", *sources, "--to", "bundle")
        restored = (
            program.run("restore", "bundle", *destinations, "--report-to", "account")
            if exported.finished
            else exported
        )
        if restored.finished:
            for number, database in enumerate(databases):
                self._judge(
                    source,
                    destination,
                    database,
                    reported_of(program.directory, _name(number), exported, restored),
                )
            return
        for number, database in enumerate(databases):
            make_empty(destination, database)
            directory = program.directory / f"alone-{number}"
            alone = Program(directory, program.environment)
            directory.mkdir()
            exported = alone.run("export", sources[number], "--to", "bundle")
            restored = (
                alone.run("restore", "bundle", destinations[number], "--report-to", "account")
                if exported.finished
                else exported
            )
            if restored.finished:
                self._judge(
                    source, destination, database, reported_of(directory, _name(number), exported, restored)
                )
            else:
                self._row.moved += 1
                self._row.errors.append(f"{database}: {restored.failure}")

    def _judge(
        self, source: MariadbServer, destination: MariadbServer, database: str, reported: Iterable[str]
    ) -> None:
        try:
            self._objects += judge(self._row, source, destination, database, list(reported))
        except pymysql.Error as error:
            self._row.errors.append(f"{database}: it cannot be compared: {error}")


def judge(
    row: SuiteRow, source: MariadbServer, destination: MariadbServer, database: str, reported: Sequence[str]
) -> int:
    """Count a database as equal, as one whose differences are reported or are a dump's too, or as a defect. Return how
    many objects it has.
    """
    row.moved += 1
    item_differences, objects = differences(source, destination, database)
    unexpected = [
        _Difference(database, item, sides)
        for item, sides in item_differences
        if not _is_reported(item, reported)
    ]
    if not item_differences:
        row.equal += 1
    elif not unexpected:
        row.losses.append(f"{database}: {', '.join(str(item) for item, _ in item_differences)}")
    else:
        dumped = _differences_of_a_dump(source, destination, database)
        unreported = [difference for difference in unexpected if difference.item not in dumped]
        row.unreported += map(str, unreported)
        if not unreported:
            row.losses.append(
                f"{database}: as after mariadb-dump: {', '.join(str(difference.item) for difference in unexpected)}"
            )
    return objects


def _name(number: int) -> str:
    return f"s{number}"


def _databases(server: MariadbServer) -> list[str]:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        names = [str(name) for (name,) in cursor.fetchall()]
    return [name for name in names if name.lower() not in _SYSTEM]


def execute(server: MariadbServer, *statements: str) -> None:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _settle(server: MariadbServer) -> None:
    """End what tests left behind: sessions, events, transactions in two phases, settings that keep readers out."""
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'root'")
        for (number,) in cursor.fetchall():
            with suppress(pymysql.Error):
                cursor.execute(f"KILL {number}")
        cursor.execute("SET GLOBAL event_scheduler = OFF")
        cursor.execute("SET GLOBAL read_only = 0")
        cursor.execute("SET GLOBAL max_allowed_packet = 67108864")
        cursor.execute("XA RECOVER FORMAT='SQL'")
        for row in cursor.fetchall():
            with suppress(pymysql.Error):
                cursor.execute(f"XA ROLLBACK {row[-1]}")


def make_empty(destination: MariadbServer, database: str) -> None:
    """Make an empty database on the destination."""
    quoted = "`" + database.replace("`", "``") + "`"
    execute(destination, f"DROP DATABASE IF EXISTS {quoted}", f"CREATE DATABASE {quoted}")


def reported_of(directory: Path, source: str, exported: Outcome, restored: Outcome) -> Iterator[str]:
    """Yield what moveout reported of one source: what it printed, the bundle's ledger and the restore's."""
    for source_report in exported.report.get("sources", []):
        if source_report["name"] == source:
            yield json.dumps([source_report["gaps"], source_report["reasons"]], ensure_ascii=False)
    for source_report in restored.report.get("restored", []):
        if source_report["source"] == source:
            yield json.dumps(
                [source_report["left_out"], source_report["notes"], source_report["findings"]],
                ensure_ascii=False,
            )
    for path in [*(directory / "bundle").rglob("*.parquet"), *(directory / "account").rglob("*.parquet")]:
        if path.stem in {"losses", "gaps"}:
            for record in pq.read_table(path).to_pylist():
                if record["source"] == source and record.get("property") != "consistency":
                    yield " ".join(map(str, record.values()))


def _is_reported(item: Item, reported: Iterable[str]) -> bool:
    pattern = re.compile(rf"(?<!\w){re.escape(item.name)}(?!\w)")
    return any(pattern.search(line.replace("`", "")) for line in reported)


def _differences_of_a_dump(source: MariadbServer, destination: MariadbServer, database: str) -> set[Item]:
    """Return what differs after the database went through mariadb-dump instead."""
    make_empty(destination, database)
    login = ["--no-defaults", "--skip-ssl", f"--user={USER}", "--host=127.0.0.1", "--force"]
    environment = {**os.environ, "MYSQL_PWD": source.password}
    dump = ["mariadb-dump", *login, f"--port={source.port}", "--routines", "--events", "--triggers", database]
    load = ["mariadb", *login, f"--port={destination.port}", "--binary-mode", database]
    text = subprocess.run(dump, env=environment, capture_output=True, check=False).stdout
    subprocess.run(load, env=environment, input=text, capture_output=True, check=False)
    return {item for item, _ in differences(source, destination, database)[0]}


SUITE = MariadbSuite()


def runs_alone(script: str) -> bool:
    """True where a script needs no more than a server: no restart of it, no debug build, no programs."""
    return not _NEEDS_MORE.search(_COMMENT.sub("", script))


def without_drops(script: str) -> str:
    """Return a script in which what it drops stays. Tables and sequences get other names, so that the script can make
    them anew, but not in a script with views, which would lose them.
    """
    numbers = count(1)
    renamed = frozenset() if _VIEW.search(script) else _RENAMED

    def kept(match: re.Match[str]) -> str:
        names = _OF_NAMES.sub("", match["names"].strip()).split(",")
        moves = []
        for name in names if match["kind"].lower() in renamed else ():
            parts = _NAME.fullmatch(name.strip().replace("`", ""))
            if parts:
                database = f"`{parts['database']}`." if parts["database"] else ""
                new = f"{database}`{parts['name'][:50]}__{next(numbers)}`"
                moves.append(f"rename table if exists {database}`{parts['name']}` to {new}")
        statements = moves or ["do 0"]
        return match["before"] + "".join(f"\n{statement}{match['end']}" for statement in statements)

    return _DROP.sub(kept, script)


def in_database(script: str, database: str) -> str:
    """Return a script that uses another database where it says ``test``."""
    return _TEST.sub(database, script)

"""The rows of the scoreboard: what is promised, how it is tested, and the commands whose output is counted."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

_PYTEST = re.compile(r"^counted: (.+)$", re.MULTILINE)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::.+?|\S+)(?: - .*)?$", re.MULTILINE)
_PASSED = re.compile(r"^=.* (\d+) passed\b.* in \d.*=$", re.MULTILINE)
_SECTION = re.compile(r"^_+ (?:ERROR at \w+ of )?(\S.*?) _+$", re.MULTILINE)
_REASON = re.compile(r"^E +(\S.*)$", re.MULTILINE)
_REASON_CHARACTERS = 300
_SUITE = re.compile(r"^([a-z0-9-]+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)(?:  \(.*\))?$", re.MULTILINE)
_FORECAST = re.compile(r"^forecasts: (\d+) moves, (\d+) within P50, (\d+) within P90$", re.MULTILINE)
_RATIO = re.compile(r"^.*\d x\b.*$|^.*\dx of .*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Output:
    """What a command's output says: figures by name, what failed by name, and lines to show."""

    counts: Counter[str]
    failures: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


def of_pytest(text: str) -> Output:
    """Read the line of ``tests/tools/tally.py``, and the tests that failed, with their reasons."""
    counts = Counter[str]()
    for listed in _PYTEST.findall(text):
        for entry in listed.split(", "):
            name, _, number = entry.rpartition("=")
            counts[name] += int(number)
    _, *sections = _SECTION.split(text)
    reasons = {
        name: reason[1][:_REASON_CHARACTERS]
        for name, section in zip(sections[::2], sections[1::2], strict=True)
        if (reason := _REASON.search(section))
    }
    failed = dict.fromkeys(_FAILED.findall(text))
    named = {test: reasons.get(test.partition("::")[2].replace("::", "."), "") for test in failed}
    return Output(counts, tuple(f"{test} - {reason}" if reason else test for test, reason in named.items()))


def of_long_tests(text: str) -> Output:
    """Read how many tests passed, and what ``of_pytest`` reads."""
    output = of_pytest(text)
    return Output(
        output.counts + Counter({"long tests": sum(map(int, _PASSED.findall(text)))}), output.failures
    )


def of_outsiders(text: str) -> Output:
    """Read the summary of ``make outsiders``: a line a suite. Where one failed, only cases that arrived equal count."""
    counts, failures = Counter[str](), []
    for name, moved, equal, reported, unreported, errors in _SUITE.findall(text.rpartition("\nsuite ")[2]):
        failed = int(unreported) + int(errors)
        counts["outsiders' cases"] += int(equal if failed else moved)
        counts["arrived equal"] += int(equal)
        counts["differences that were named"] += int(reported)
        if failed:
            failures.append(f"{name}: {unreported} differences not named, {errors} errors")
    return Output(counts, tuple(failures))


def of_forecasts(text: str) -> Output:
    """Read what ``scripts.bench.forecast check`` says."""
    counts = Counter[str]()
    for moves, p50, p90 in _FORECAST.findall(text):
        counts["forecasts"] += int(moves)
        counts["within P50"] += int(p50)
        counts["within P90"] += int(p90)
    return Output(counts)


def of_bench(text: str) -> Output:
    """Read the lines with which a benchmark compares moveout with others."""
    lines = tuple(line.strip() for line in _RATIO.findall(text))
    return Output(Counter({"comparisons": len(lines)}), (), lines)


@dataclass(frozen=True, slots=True)
class Step:
    """A command that a reader can repeat in the checkout."""

    name: str
    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[str], Output] = of_pytest

    @property
    def command(self) -> str:
        """The command as one types it."""
        variables = "".join(f"{name}={value} " for name, value in self.environment.items())
        return variables + " ".join(map(_quoted, self.words))


@dataclass(frozen=True, slots=True)
class Row:
    """A promise. ``unit`` names the figure that counts towards ``target``; ``beside`` others that are shown."""

    name: str
    promise: str
    how: str
    unit: str
    target: int
    steps: tuple[Step, ...]
    beside: tuple[str, ...] = ()


def _quoted(word: str) -> str:
    """Quote a word for a shell; ``ARGS="..."`` where that does, since its value has quotes of its own."""
    name, is_assignment, value = word.partition("=")
    if shlex.quote(word) == word or not is_assignment or set(value) & set('"$`\\!'):
        return shlex.quote(word)
    return f'{name}="{value}"'


def _torture(name: str, arguments: str, **environment: object) -> Step:
    return Step(
        name,
        ("make", "torture", f"ARGS={arguments}"),
        {key: str(value) for key, value in environment.items()},
    )


def _cutovers(name: str, arguments: str, **environment: object) -> Step:
    return _torture(name, arguments, MOVEOUT_CUTOVERS=2, **environment)


def _faults(name: str, engine: str, **environment: object) -> Step:
    return _torture(name, f"{_FAULTS} -k {engine}", MOVEOUT_FAULT_ROUNDS=3, **environment)


def _long_tests(name: str, *paths: str) -> Step:
    words = [f"tests/{path}" for path in paths]
    others = [file for file, _ in _GENERATED.values() if file.startswith(tuple(f"{word}/" for word in words))]
    step = _torture(
        name, " ".join(["-n 2 --dist loadfile", *words, *(f"--ignore={file}" for file in others)])
    )
    return replace(step, read=of_long_tests)


def _outsiders(suite: str, rows: int, name: str = "", part: str = "1/1") -> Step:
    words = f"{suite} --rows {rows}" + (f" --slice {part}" if name else "")
    return Step(f"{suite}{name}", ("make", "outsiders", f"ARGS={words}"), read=of_outsiders)


def _bench(name: str) -> Step:
    return Step(name, ("make", "bench", f"ARGS=--quick {name}"), read=of_bench)


_GENERATED = {
    "PostgreSQL": ("tests/exporters/postgres/test_block_parser.py", 3000),
    "MySQL": ("tests/exporters/mysql/test_block_parser.py", 3000),
    "SQLite": ("tests/exporters/sqlite/test_fetched_blocks.py", 2000),
    "a restore to PostgreSQL": ("tests/restore/postgres/test_binary_rows.py", 2000),
}
"""Tests of random tables, and how many tables make a round. Their own row has all their long tests."""
_CRASH_POINTS = "tests/crash_points/test_crash_points.py"
_FORECASTS = (
    *(".venv/bin/python", "-m", "scripts.bench.forecast", "check"),
    *("--moves", "6", "--to", "build/forecasts"),
)
_EVICTED = "tests/torture/test_eviction.py"
_CUTOVERS = "tests/torture/follow/test_cutover_kills.py"
_MYSQL_CUTOVERS = "tests/torture/follow/test_mysql_cutover_kills.py"
_HOSTILE = "tests/torture/test_hostile_inputs.py"
_FAULTS = "tests/torture/follow/test_faults.py"
_POSTGRES_15 = "/usr/lib/postgresql/15/bin"
ROWS = (
    Row(
        "kills",
        "A kill loses nothing: the same command goes on, and the result is the same",
        "SIGKILL before and after each durable step of every command, and at random moments",
        "kills",
        1000,
        (
            *(
                _torture(f"durable steps: {move}", f"{_CRASH_POINTS} -k 'all and {move}'")
                for move in (
                    "export-sqlite",
                    "transfer",
                    "restore-sqlite",
                    "restore-postgres",
                    "restore-mariadb",
                )
            ),
            *(
                _torture(
                    f"durable steps: {name}",
                    f"{_CRASH_POINTS} -k 'all and ({moves})'",
                    MOVEOUT_CRASH_POINTS=points,
                )
                for name, moves, points in (
                    ("buckets", "bucket or sync", 8),
                    ("repeated exports", "export-again or export-more", 8),
                    ("custody", "sign or receive or erase or grant or hold", 4),
                    ("followed databases", "follow or cutover or repair", 6),
                )
            ),
            _torture("random moments", "tests/torture/test_kills.py", MOVEOUT_KILLS=12),
            _torture("random moments: databases", "tests/torture/test_kills_databases.py", MOVEOUT_KILLS=12),
            _torture("random moments: histories", "tests/torture/test_kills_histories.py", MOVEOUT_KILLS=9),
            _torture(
                "random moments: servers, too", "tests/torture/test_kills_restarted.py", MOVEOUT_KILLS=8
            ),
        ),
    ),
    Row(
        "network-faults",
        "A fault on the wire is overcome, or ends the command with an error that says so",
        "a proxy delays, cuts and spoils one request of any command; toxiproxy cuts databases that are followed",
        "network faults",
        300,
        (
            _torture("requests of S3", "tests/torture/test_faulty_wire.py", MOVEOUT_FAULTS=25),
            _torture(
                "connections of databases", "tests/torture/follow/test_faults.py", MOVEOUT_FAULTS_A_ROUND=10
            ),
        ),
    ),
    Row(
        "disk-faults",
        "A full or failing disk ends the command with an error that says so; the same command completes it",
        "the nth write, fsync, rename, create or read below a folder fails with ENOSPC or EIO",
        "disk faults",
        200,
        tuple(
            _torture(name, f"tests/disk_faults -k 'many and ({name})'", MOVEOUT_DISK_FAULTS=12)
            for name in ("restore or verify", "transfer", "export", "sign or receive or erase")
        ),
    ),
    Row(
        "evictions",
        "When the host shuts you out, what is there is sealed, what is missing is named, and it can be continued",
        "a credential is refused in the middle; servers of a whole host are killed, full or without rights",
        "evictions",
        50,
        (
            _torture("a bucket, after any request", _EVICTED, MOVEOUT_EVICTIONS=9),
            _torture("one thing of a whole host", "tests/torture/test_each_in_turn.py", MOVEOUT_BREAKS=3),
        ),
    ),
    Row(
        "tampers",
        "Whatever is changed in a bundle, the verification names that very file",
        "one file is changed, cut, extended, swapped, replaced, renamed or removed; only a named file counts",
        "tampers",
        10_000,
        (_torture("any file", "tests/torture/test_tampers.py", MOVEOUT_TAMPERS=2000),),
    ),
    Row(
        "generated-tables",
        "The compiled core and Python make the same of a table: values, digests, and rows for a restore",
        "random tables of all types, as servers send them, with odd values, and damaged ones; both ways are compared",
        "generated tables",
        10_000,
        tuple(
            _torture(name, f"{tests} -k 'long_time or many_tables'", MOVEOUT_TABLES=tables)
            for name, tests, tables in (
                ("PostgreSQL", "tests/exporters/postgres/test_block_parser.py", 3000),
                ("MySQL", "tests/exporters/mysql/test_block_parser.py", 3000),
                ("SQLite", "tests/exporters/sqlite/test_fetched_blocks.py", 2000),
                ("a restore to PostgreSQL", "tests/restore/postgres/test_binary_rows.py", 2000),
            )
        ),
    ),
    Row(
        "hostile-inputs",
        "A bundle or a name of somebody who means harm is read safely, or refused in one sentence",
        "sealed bundles with other values in JSON, Parquet, SQL and manifests; hostile names of tables and columns",
        "hostile inputs",
        500,
        (
            _torture("bundles and names", f"{_HOSTILE} -k 'not server'", MOVEOUT_HOSTILE=140),
            _torture("bundles of PostgreSQL", f"{_HOSTILE} -k postgres", MOVEOUT_HOSTILE=140),
            _torture("bundles of MariaDB", f"{_HOSTILE} -k mariadb", MOVEOUT_HOSTILE=140),
        ),
    ),
    Row(
        "outsiders",
        "What other people's test suites create arrives, or the difference is named",
        "suites of PostgreSQL, MariaDB and others are moved and compared by means of their own",
        "outsiders' cases",
        5_000,
        (
            _outsiders("postgresql-regress", 1),
            _outsiders("postgresql-dump", 2),
            _outsiders("mariadb-suite", 2),
            _outsiders("odd-keys", 2),
            _outsiders("postgresql-regress", 1, ": plain", "5/9"),
            _outsiders("postgresql-regress", 1, ": drops removed", "6/9"),
            _outsiders("postgresql-regress", 1, ": SQL_ASCII", "7/9"),
            _outsiders("postgresql-regress", 1, ": EUC_JP", "8/9"),
            _outsiders("postgresql-subscription", 12),
        ),
        ("arrived equal", "differences that were named"),
    ),
    Row(
        "forecasts",
        "Nine of ten moves take no longer than P90",
        "real moves, each forecast with what moveout comes with, and then timed",
        "forecasts",
        48,
        (Step("moves of several kinds", _FORECASTS, read=of_forecasts),),
        ("within P50", "within P90"),
    ),
    Row(
        "cutovers",
        "Nothing is lost or doubled when an application changes over while it writes",
        "writers transfer money while the move is killed, servers, networks and disks break, and logs are lost;"
        " every acknowledged transfer is at the new database, once",
        "cutovers",
        200,
        (
            _cutovers("MySQL", f"{_MYSQL_CUTOVERS} -k 'not mariadb'"),
            _cutovers("PostgreSQL 18", _CUTOVERS, MOVEOUT_POSTGRES="wheel"),
            _cutovers("MariaDB", f"{_MYSQL_CUTOVERS} -k mariadb"),
            _cutovers("PostgreSQL 15", _CUTOVERS, MOVEOUT_POSTGRES=_POSTGRES_15),
            _faults("PostgreSQL 18: faults", "postgres", MOVEOUT_POSTGRES="wheel"),
            _faults("PostgreSQL 15: faults", "postgres", MOVEOUT_POSTGRES=_POSTGRES_15),
            _faults("MySQL: faults", "mysql"),
            _faults("MariaDB: faults", "mariadb"),
        ),
        ("kills", "kills of servers", "lost logs"),
    ),
    Row(
        "further-cases",
        "What holds in one case holds in the others: other servers, versions, sizes, moments and orders of events",
        "the long tests that no other row runs, two files at a time",
        "long tests",
        1_000,
        (
            _long_tests("storage", "storage"),
            _long_tests("exports of PostgreSQL 12 to 18", "exporters/postgres"),
            _long_tests(
                "exports of other databases",
                "exporters/mysql",
                "exporters/sqlite",
                "exporters/test_contract.py",
            ),
            _long_tests("exports of buckets", "exporters/objects", "export"),
            _long_tests("transfers", "transfer", "test_damage.py"),
            _long_tests("restores", "restore", "verify", "bundle"),
            _long_tests("changes", "changes", "follow"),
            _long_tests("syncs", "sync"),
            _long_tests("custody", "custody", "discover", "doctor"),
            _long_tests("commands", "cli", "docs", "outsiders", "test_install.py", "test_proof.py"),
            _long_tests("clusters", "cluster"),
            _long_tests(
                "whole databases",
                *(
                    f"torture/test_{name}.py"
                    for name in (
                        "flavours",
                        "four_commands",
                        "large_object",
                        "large_values",
                        "left_out",
                        "many_tables",
                        "money",
                        "mysql_own",
                        "random_databases",
                        "random_schemas",
                        "repairs",
                    )
                ),
            ),
            _long_tests(
                "followed databases",
                *(
                    f"torture/follow/test_{name}.py"
                    for name in (
                        "clock_jumps",
                        "failover",
                        "mysql_clean_after_kills",
                        "polled_servers",
                        "silence",
                    )
                ),
            ),
        ),
    ),
    Row(
        "speeds",
        "moveout is as fast as the measurements say",
        "the same work by other tools, in turns on the same servers",
        "comparisons",
        10,
        tuple(map(_bench, ("objects", "transfer", "postgres", "mysql", "restore", "moves"))),
    ),
)
"""In the order of the page."""

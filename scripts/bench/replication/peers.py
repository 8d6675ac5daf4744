"""What carries which changes from one PostgreSQL to another: moveout beside a native subscription and pgcopydb.

    python -m scripts.bench.replication.peers [--turns 40] [--seed 1]

Each tool takes a base of the same database and follows it while the same random workload runs there. The workload is a
list of things that applications do, each with tables of its own; afterwards each thing is compared. The tools run one
after the other. pgcopydb is the one of the machine's package sources.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from scripts.bench.turns import beside
from scripts.binaries import find_postgres, postgres_major
from scripts.outsiders.debian import fetch_package
from scripts.outsiders.suite import Skipped
from scripts.postgresql import PostgresServer
from scripts.servers import Servers, environment_for

_WAIT_SECONDS = 120.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that applications do. ``before`` makes its tables, ``turn`` is done again and again with a number ``n``
    in it, ``check`` has the same answer on both sides where it has arrived. A turn whose first word is BEGIN is one
    transaction.
    """

    name: str
    before: str
    turn: Sequence[str]
    check: str


THINGS = (
    Thing(
        "rows with a key, keys that change",
        "CREATE TABLE keyed (id int PRIMARY KEY, v text)",
        (
            "INSERT INTO keyed VALUES ({n}, 'a') ON CONFLICT DO NOTHING",
            "UPDATE keyed SET id = id + 1000 WHERE id = {n} - 2",
            "DELETE FROM keyed WHERE id % 7 = 0",
        ),
        "SELECT * FROM keyed ORDER BY 1",
    ),
    Thing(
        "equal rows, REPLICA IDENTITY FULL",
        "CREATE TABLE whole (v int); ALTER TABLE whole REPLICA IDENTITY FULL",
        (
            "INSERT INTO whole VALUES ({n} % 3), ({n} % 3)",
            "DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole)",
        ),
        "SELECT * FROM whole ORDER BY 1",
    ),
    Thing(
        "a table without a key",
        "CREATE TABLE keyless (v int)",
        ("INSERT INTO keyless VALUES ({n})", "UPDATE keyless SET v = v + 1 WHERE v % 5 = 0"),
        "SELECT * FROM keyless ORDER BY 1",
    ),
    Thing(
        "savepoints, rollbacks, two-phase commits",
        "CREATE TABLE phases (id int PRIMARY KEY)",
        (
            (
                "BEGIN; INSERT INTO phases VALUES ({n}); SAVEPOINT a; INSERT INTO phases VALUES ({n} + 5000);"
                " ROLLBACK TO a; PREPARE TRANSACTION 'two'"
            ),
            "COMMIT PREPARED 'two'",
            "BEGIN; INSERT INTO phases VALUES ({n} + 9000); ROLLBACK",
        ),
        "SELECT * FROM phases ORDER BY 1",
    ),
    Thing(
        "TRUNCATE",
        "CREATE TABLE emptied (id int PRIMARY KEY)",
        ("TRUNCATE emptied", "INSERT INTO emptied VALUES ({n})"),
        "SELECT * FROM emptied",
    ),
    Thing(
        "triggers and cascades, each once",
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent"
        " ON DELETE CASCADE); CREATE TABLE audit (n serial PRIMARY KEY);"
        " CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.audit DEFAULT VALUES;"
        " RETURN NULL; END'; CREATE TRIGGER noted AFTER INSERT ON child FOR EACH ROW EXECUTE FUNCTION noted()",
        (
            "INSERT INTO parent VALUES ({n})",
            "INSERT INTO child VALUES ({n}, {n})",
            "DELETE FROM parent WHERE id = {n} - 3",
        ),
        "SELECT count(*), (SELECT count(*) FROM child) FROM audit",
    ),
    Thing(
        "generated columns",
        "CREATE TABLE doubled (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)",
        ("INSERT INTO doubled VALUES ({n})", "UPDATE doubled SET id = -id WHERE id = {n} - 1"),
        "SELECT * FROM doubled ORDER BY 1",
    ),
    Thing(
        "rows that move between partitions",
        "CREATE TABLE parts (id int, place int, PRIMARY KEY (id, place)) PARTITION BY LIST (place);"
        " CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0); CREATE TABLE parts_1 PARTITION OF parts DEFAULT",
        ("INSERT INTO parts VALUES ({n}, 0)", "UPDATE parts SET place = 1 WHERE id = {n} - 1"),
        "SELECT *, tableoid::regclass::text FROM parts ORDER BY 1",
    ),
    Thing(
        "large values that an update leaves alone",
        "CREATE TABLE long (id int PRIMARY KEY, v int, text text); ALTER TABLE long ALTER text SET STORAGE EXTERNAL",
        (
            "INSERT INTO long VALUES ({n}, 0, repeat(md5('{n}'), 500))",
            "UPDATE long SET v = v + 1 WHERE id <= {n}",
        ),
        "SELECT id, v, md5(text) FROM long ORDER BY 1",
    ),
    Thing(
        "sequences",
        "CREATE SEQUENCE counter",
        ("SELECT nextval('counter')",),
        "SELECT last_value FROM counter",
    ),
    Thing(
        "large objects",
        "SELECT lo_create(4711)",
        ("SELECT lo_put(4711, {n}, 'x')",),
        "SELECT md5(lo_get(4711))",
    ),
    Thing(
        "materialized views",
        "CREATE TABLE shown (id int PRIMARY KEY); CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM shown",
        ("INSERT INTO shown VALUES ({n})", "REFRESH MATERIALIZED VIEW seen"),
        "SELECT * FROM seen",
    ),
)
Follow = Callable[["Pair"], "Followed"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Both databases, and a folder. ``base`` is when the tool has its base: then ``write`` runs the workload."""

    source: PostgresServer
    destination: PostgresServer
    name: str
    folder: Path
    environment: Mapping[str, str]
    write: Callable[[], None]

    def conninfo(self, server: PostgresServer) -> str:
        """Return a URL with its password, for programs that have no other way."""
        return server.url_of(self.name).replace("//postgres@", f"//postgres:{server.password}@")


@dataclass(frozen=True, slots=True)
class Followed:
    """What a tool says when it ends, and after how many seconds all had arrived that it brings."""

    words: str
    seconds: float


def main() -> int:
    """Let each tool follow, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument(
        "--without", default="", metavar="WORD", help="leave out things with this in their name"
    )
    parser.add_argument("--tool", choices=_TOOLS, help="only this one")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"--seed {options.seed}")
    things = [thing for thing in THINGS if not options.without or options.without not in thing.name]
    results: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as directory, Servers(Path(directory)) as servers:
        settings = ["wal_level=logical", "max_prepared_transactions=10", "max_replication_slots=20"]
        Path(directory).chmod(0o755)  # servers run as another user
        settings.append(f"dynamic_library_path=$libdir:{_plugins(Path(directory) / 'plugins')}")
        source = servers.postgres("source", settings=settings)
        destination = servers.postgres("destination", settings=settings)
        for tool, follow in _TOOLS.items():
            if options.tool not in {None, tool}:
                continue
            name = tool.split()[0]
            for server in (source, destination):
                server.database(name)
            for thing in things:
                source.execute(thing.before, name)
            folder = Path(directory) / f"work-{name}"
            folder.mkdir()
            chance = random.Random(options.seed)

            def write(name: str = name, chance: random.Random = chance) -> None:
                _write(source, name, things, options.turns, chance)

            pair = Pair(source, destination, name, folder, environment_for(servers), write)
            followed = follow(pair)
            results[tool] = [_compared(pair, thing) for thing in things]
            print(f"{tool}: {followed.words} ({followed.seconds:.1f} s after the last change)", flush=True)
    print(f"\n| {'what':56} | " + " | ".join(results) + " |")
    for number, thing in enumerate(things):
        print(f"| {thing.name:56} | " + " | ".join(result[number] for result in results.values()) + " |")
    return 0


def _plugins(folder: Path) -> Path:
    """Return a folder with the output plugin that pgcopydb needs, where it can be had."""
    folder.mkdir()
    package = fetch_package(f"postgresql-{postgres_major(find_postgres())}-wal2json")
    if not isinstance(package, Skipped):
        shutil.copy(next(package.rglob("wal2json.so")), folder)
    return folder


def _write(
    server: PostgresServer, database: str, things: Sequence[Thing], turns: int, chance: random.Random
) -> None:
    """Run the turns of all things, mixed. A statement that the server refuses is left out, and counted by the word."""
    numbers = [(thing, n) for thing in things for n in range(1, turns + 1)]
    order = sorted(range(len(numbers)), key=lambda index: (numbers[index][1], chance.random()))
    with psycopg.connect(server.url_of(database), password=server.password, autocommit=True) as connection:
        for index in order:
            thing, n = numbers[index]
            for statement in thing.turn:
                try:
                    connection.execute(statement.format(n=n).encode())
                except psycopg.Error as error:
                    _REFUSED.setdefault((database, thing.name), str(error).partition("\n")[0])


_REFUSED: dict[tuple[str, str], str] = {}
"""By database and thing, what the source refused to the application while it was followed."""


def _compared(pair: Pair, thing: Thing) -> str:
    """Return whether a thing has arrived."""
    answers = []
    for server in (pair.source, pair.destination):
        try:
            with psycopg.connect(server.url_of(pair.name), password=server.password) as connection:
                answers.append(connection.execute(thing.check.encode()).fetchall())
        except psycopg.Error as error:
            answers.append([(str(error),)])
    word = "yes" if answers[0] == answers[1] else "NO"
    refused = _REFUSED.get((pair.name, thing.name))
    return f"{word}; the source refuses: {refused}" if refused else word


def _moveout(pair: Pair) -> Followed:
    case = pair.folder / "moveout.toml"
    case.write_text(
        f'[case]\nname = "peers"\nfollow = true\n[[source]]\nname = "app"\nurl = "{pair.source.url_of(pair.name)}"\n'
        f'[bundle]\nlocation = "{pair.folder}/bundle"\n[[destination]]\nsource = "app"\n'
        f'url = "{pair.destination.url_of(pair.name)}"\n'
    )
    for verb in ("export", "restore"):
        _run(pair, [beside("moveout"), verb, "-c", str(case), "--quiet"])
    pair.write()
    begun = time.monotonic()
    words = [beside("moveout"), "cutover", "-c", str(case), "--hold", "--yes", "--quiet"]
    ended = _run(pair, [*words, "--undo-file", str(pair.folder / "undo.json")])
    return Followed(f"exit code {ended.returncode}", time.monotonic() - begun)


def _subscription(pair: Pair) -> Followed:
    """Make the definitions by pg_dump, and subscribe; nothing says when it has all, so its position is asked."""
    dump = [str(pair.source.bin_dir / "pg_dump"), "--schema-only", "-d", pair.conninfo(pair.source)]
    script = subprocess.run(dump, capture_output=True, check=True, text=True).stdout
    psql = [str(pair.destination.bin_dir / "psql"), "-q", "-d", pair.conninfo(pair.destination)]
    subprocess.run(psql, input=script, capture_output=True, check=True, text=True)
    pair.source.execute("CREATE PUBLICATION peer FOR ALL TABLES", pair.name)
    pair.destination.execute(
        f"CREATE SUBSCRIPTION peer CONNECTION '{pair.conninfo(pair.source)}' PUBLICATION peer", pair.name
    )
    ready = "SELECT bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel"
    _wait(pair.destination, pair.name, ready)
    pair.write()
    begun = time.monotonic()
    with psycopg.connect(pair.source.url_of(pair.name), password=pair.source.password) as connection:
        (end,) = connection.execute("SELECT pg_current_wal_lsn()").fetchone() or ("",)
    has_all = (
        f"SELECT confirmed_flush_lsn >= '{end}'::pg_lsn FROM pg_replication_slots WHERE slot_name = 'peer'"
    )
    words = "it has confirmed all" if _wait(pair.source, pair.name, has_all) else "it never confirms all"
    return Followed(words, time.monotonic() - begun)


def _pgcopydb(pair: Pair) -> Followed:
    package = fetch_package("pgcopydb")
    if isinstance(package, Skipped):
        return Followed(f"SKIPPED: {package.reason}", 0.0)
    program = str(next(package.rglob("bin/pgcopydb")))
    ends = {
        "PGCOPYDB_SOURCE_PGURI": pair.conninfo(pair.source),
        "PGCOPYDB_TARGET_PGURI": pair.conninfo(pair.destination),
    }
    pair = replace(pair, environment={**pair.environment, **ends})
    place = ["--dir", str(pair.folder / "work")]
    log = pair.folder / "log"
    with log.open("wb") as output:
        following = subprocess.Popen(
            [program, "clone", "--follow", *place],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **pair.environment},
        )
        try:
            copied = (
                "SELECT count(*) > 0 FROM pg_replication_slots WHERE active AND database = current_database()"
            )
            _wait(pair.source, pair.name, copied)
            pair.write()
            begun = time.monotonic()
            _run(pair, [program, "stream", "sentinel", "set", "endpos", "--current"])
            try:
                words_of_end = f"exit code {following.wait(_WAIT_SECONDS)}"
            except subprocess.TimeoutExpired:
                words_of_end = f"it does not end within {_WAIT_SECONDS:.0f} s"
        finally:
            following.kill()
            following.wait()
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if "ERROR" in line or "FATAL" in line]
    return Followed(" ".join([words_of_end, *errors[:3]]), time.monotonic() - begun)


def _run(pair: Pair, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env={**os.environ, **pair.environment}, capture_output=True, text=True, check=False
    )


def _wait(server: PostgresServer, database: str, query: str) -> bool:
    """Wait until a query is true; tell whether it has become so."""
    deadline = time.monotonic() + _WAIT_SECONDS
    with psycopg.connect(server.url_of(database), password=server.password, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(query.encode()).fetchone()
            if row and row[0]:
                return True
            time.sleep(_POLL_SECONDS)
    return False


_TOOLS: Mapping[str, Follow] = {
    "moveout": _moveout,
    "native subscription": _subscription,
    "pgcopydb": _pgcopydb,
}


if __name__ == "__main__":
    sys.exit(main())

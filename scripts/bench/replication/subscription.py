"""A backlog of changes comes from one PostgreSQL to another: moveout follow beside a native subscription.

    python -m scripts.bench.replication.subscription [--changes 1000000] [--shape mixed|inserts|updates]

Both read a slot of their own of the same source, made before the changes, and write to databases of the same
destination. One runs after the other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from scripts.bench.turns import beside
from scripts.cost import cost_of, used_by
from scripts.postgresql import PostgresServer
from scripts.servers import Servers, environment_for

_TABLES = """
CREATE TABLE accounts (id int PRIMARY KEY, branch int, balance bigint, filler text);
CREATE TABLE tellers (id int PRIMARY KEY, balance bigint);
CREATE TABLE history (id bigint PRIMARY KEY, account int, teller int, delta int, at timestamptz, note text);
INSERT INTO accounts SELECT i, i % 100, 0, repeat('x', 80) FROM generate_series(1, 200000) i;
INSERT INTO tellers SELECT i, 0 FROM generate_series(1, 100) i;
"""
_INSERT = "INSERT INTO history VALUES (i, i % 200000 + 1, i % 100 + 1, i % 1000, now(), 'note ' || i);"
_UPDATE = "UPDATE accounts SET balance = balance + i WHERE id = (i * 7919::bigint) % 200000 + 1;"
_TELLER = "UPDATE tellers SET balance = balance + i WHERE id = i % 100 + 1;"
_DELETE = "DELETE FROM history WHERE id = i - 1000;"
SHAPES = {
    "mixed": [_UPDATE, _TELLER, _INSERT, _DELETE],
    "inserts": [_INSERT] * 1,
    "updates": [_UPDATE] * 1,
}
_PER_TRANSACTION = 4
_PEER = "native"
_PEER_WAIT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of the clock, and of the processors: the tool's own, the source's, the destination's."""

    seconds: float
    own_cpu: float
    source_cpu: float
    destination_cpu: float
    peak_bytes: int = 0

    def __str__(self) -> str:
        peak = f", at most {self.peak_bytes / 2**20:.0f} MB" if self.peak_bytes else ""
        return (
            f"{self.seconds:6.1f} s; CPU: tool {self.own_cpu:.1f} s{peak}, source {self.source_cpu:.1f} s,"
            f" destination {self.destination_cpu:.1f} s"
        )


def main() -> int:
    """Make the servers, the bases and the backlog, and let both apply it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--changes", type=int, default=1_000_000)
    parser.add_argument("--shape", choices=SHAPES, default="mixed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Servers(Path(directory)) as servers:
        source = servers.postgres("source", settings=["wal_level=logical"])
        destination = servers.postgres("destination")
        variables = environment_for(servers)
        origin = source.database("app")
        source.execute(_TABLES, "app")
        command = [beside("moveout"), "export", f"app={origin}", "--to", f"{directory}/bundle", "--follow"]
        cost_of(command, variables)
        url = destination.database("ours")
        cost_of([beside("moveout"), "restore", f"{directory}/bundle", f"app={url}"], variables)
        _prepare_peer(source, destination)
        _write_changes(source, options.shape, options.changes)
        follow = [beside("moveout"), "follow", f"{directory}/bundle", f"app={url}", "--until-caught-up"]
        before = _used(source), _used(destination)
        cost = cost_of(follow, variables)
        ours = Measured(
            cost.seconds,
            cost.cpu_seconds,
            _used(source) - before[0],
            _used(destination) - before[1],
            cost.peak_bytes,
        )
        print(f"moveout follow       {ours}", flush=True)
        peer = _subscribe(source, destination)
        print(f"native subscription  {peer}", flush=True)
        print(f"moveout takes {ours.seconds / peer.seconds:.2f} of the subscription's time")
        _check(source, destination)
    return 0


def _prepare_peer(source: PostgresServer, destination: PostgresServer) -> None:
    destination.database(_PEER)
    destination.execute(_TABLES, _PEER)
    source.execute(f"CREATE PUBLICATION {_PEER} FOR ALL TABLES", "app")
    source.execute(f"SELECT pg_create_logical_replication_slot('{_PEER}', 'pgoutput')", "app")


def _write_changes(server: PostgresServer, shape: str, changes: int) -> None:
    """Write changes, a few in each transaction."""
    statements = SHAPES[shape]
    per_turn = len(statements)
    turns = max(_PER_TRANSACTION // per_turn, 1)
    body = " ".join(statements)
    started = time.monotonic()
    server.execute(
        f"DO $$ BEGIN FOR i IN 1..{changes // per_turn} LOOP {body}"
        f" IF i % {turns} = 0 THEN COMMIT; END IF; END LOOP; END $$",
        "app",
    )
    print(f"{changes:,} changes ({shape}) were written in {time.monotonic() - started:.1f} s", flush=True)


def _subscribe(source: PostgresServer, destination: PostgresServer) -> Measured:
    """Let a subscription catch up."""
    before = _used(source), _used(destination)
    started = time.monotonic()
    with (
        psycopg.connect(source.url_of("app"), password=source.password, autocommit=True) as origin,
        psycopg.connect(destination.url_of(_PEER), password=destination.password, autocommit=True) as target,
    ):
        (end,) = origin.execute("SELECT pg_current_wal_insert_lsn()").fetchone() or ("",)
        where = f"host={source.host} port={source.port} user=postgres password={source.password} dbname=app"
        target.execute(
            f"CREATE SUBSCRIPTION {_PEER} CONNECTION '{where}' PUBLICATION {_PEER}"
            f" WITH (create_slot = false, slot_name = '{_PEER}', copy_data = false)".encode()
        )
        query = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
        while not (origin.execute(query, (end, _PEER)).fetchone() or (False,))[0]:
            if time.monotonic() - started > _PEER_WAIT_SECONDS:
                raise TimeoutError("the subscription does not catch up")
            time.sleep(0.05)
    seconds = time.monotonic() - started
    return Measured(seconds, 0.0, _used(source) - before[0], _used(destination) - before[1])


def _used(server: PostgresServer) -> float:
    return used_by(server.child.popen.pid)


def _check(source: PostgresServer, destination: PostgresServer) -> None:
    """Compare all three databases."""
    query = " UNION ALL ".join(
        f"SELECT count(*), sum(hashtext(t::text)::bigint) FROM {name} t"
        for name in ("accounts", "tellers", "history")
    )
    results = []
    for server, database in ((source, "app"), (destination, "ours"), (destination, _PEER)):
        with psycopg.connect(server.url_of(database), password=server.password) as connection:
            connection.execute("SET timezone = 'UTC'")
            results.append(connection.execute(query.encode()).fetchall())
    same = "equal" if results[0] == results[1] == results[2] else f"DIFFERENT: {results}"
    print(f"the databases are {same}")


if __name__ == "__main__":
    sys.exit(main())

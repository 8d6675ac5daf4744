"""What follows a MariaDB database: moveout, and MariaDB's own replication."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pymysql

from scripts.bench.replication.tools import FollowTool, Moveout, Pair, cursor_of, pairs_between
from scripts.mariadb import USER, MariadbServer
from scripts.servers import Servers, environment_for

_SETTINGS = ["binlog-format=ROW", "binlog-row-metadata=FULL", "innodb-buffer-pool-size=512M"]
_WAIT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class MariadbPair(Pair[MariadbServer]):
    """See ``Pair``."""

    def open(self, server: MariadbServer) -> pymysql.Connection:
        """See ``Pair``."""
        return server.connect(self.name)


@dataclass(slots=True)
class Replication:
    """A replica by GTID, from a dump that names its position."""

    pair: MariadbPair
    cpu_seconds: float = 0.0
    peak_bytes: int = 0

    def take_base(self) -> None:
        """See ``FollowTool``."""
        pair, source = self.pair, self.pair.source_server
        words = ["--single-transaction", "--master-data=1", "--gtid", "--routines", "--triggers", "--events"]
        dump = subprocess.run(
            ["mariadb-dump", *_address(source), *words, pair.name],
            env=pair.environment,
            capture_output=True,
            check=True,
        ).stdout
        load = ["mariadb", *_address(pair.destination_server), pair.name]
        subprocess.run(load, input=dump, env=pair.environment, capture_output=True, check=True)
        self._command(f"SET GLOBAL replicate_wild_do_table = '{pair.name}.%'")
        self._command(
            f"CHANGE MASTER TO MASTER_HOST = '{source.host}', MASTER_PORT = {source.port}, MASTER_USER = '{USER}',"
            f" MASTER_PASSWORD = '{source.password}', MASTER_USE_GTID = slave_pos"
        )

    def start(self) -> None:
        """See ``FollowTool``."""
        self._command("START SLAVE")

    def look(self) -> None:
        """See ``FollowTool``: the servers do it."""

    def stop(self) -> None:
        """See ``FollowTool``."""
        self._command("STOP SLAVE")

    def finish(self) -> str:
        """Wait for the source's position."""
        with cursor_of(self.pair.source()) as cursor:
            cursor.execute("SELECT @@gtid_binlog_pos")
            (position,) = cursor.fetchone()
        with cursor_of(self.pair.destination()) as cursor:
            cursor.execute("SELECT MASTER_GTID_WAIT(%s, %s)", (position, _WAIT_SECONDS))
            (result,) = cursor.fetchone()
            cursor.execute("SHOW SLAVE STATUS")
            names = [column[0] for column in cursor.description]
            status = dict(zip(names, cursor.fetchone(), strict=True))
        self.stop()
        error = status["Last_SQL_Error"] or status["Last_IO_Error"]
        return "it has all" if result == 0 else f"it does not come to the end: {error or 'no error'}"

    def _command(self, statement: str) -> None:
        with cursor_of(self.pair.destination_server.connect()) as cursor:
            cursor.execute(statement)


def start_pair(servers: Servers, directory: Path) -> Callable[[str], MariadbPair]:
    """Start two servers, and return what makes a pair of empty databases of a name."""
    source = servers.mariadb("mariadb-source", settings=_SETTINGS)
    # The replica's own transactions must not be taken for later ones of the source.
    destination = servers.mariadb(
        "mariadb-destination", settings=[*_SETTINGS, "server-id=2", "gtid-domain-id=1"]
    )
    return pairs_between(MariadbPair, source, destination, directory, environment_for(servers))


def tools() -> Mapping[str, Callable[[MariadbPair], FollowTool]]:
    """Return what can follow, by name."""
    return {"moveout": Moveout, "replication": Replication}


def _address(server: MariadbServer) -> list[str]:
    return ["--no-defaults", "-h", server.host, "-P", str(server.port), "-u", USER, "--skip-ssl"]

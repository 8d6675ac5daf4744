"""Databases of the engines beside PostgreSQL, large enough to be killed in the middle, and how two are compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scripts import proof, seed
from scripts.mariadb import MariadbServer
from scripts.postgresql import PostgresServer
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres
from tests.exporters.sqlite import databases as sqlite

TABLES, ROWS = 30, 10_000
_TORTURE = Path(__file__).parents[1]


class Database(Protocol):
    """A source, destinations for it, and the engine's own comparison."""

    @property
    def source(self) -> str:
        """The URL of what leaves."""
        ...

    def destination(self) -> str:
        """The URL of a new, empty destination."""
        ...

    def compare(self, destination: str) -> None:
        """Assert that definitions and rows are the source's."""
        ...


@dataclass(frozen=True, slots=True)
class OnMariadb:
    """A database of one server, restored to another; MySQL is reached in the same way."""

    source: str
    other: MariadbServer

    @staticmethod
    def seeded(server: MariadbServer, other: MariadbServer) -> "OnMariadb":
        url = server.database()
        mariadb = "MariaDB" in str(mysql.fetch(url, "SELECT VERSION()"))
        # MariaDB has types of its own.
        script = (_TORTURE / "exporters/mysql/torture.sql").read_text() if mariadb else ""
        numbers = f"SELECT seq AS i FROM seq_1_to_{ROWS}"
        if not mariadb:
            script += f"SET SESSION cte_max_recursion_depth = {ROWS};"
            more = f"SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}"
            numbers = f"WITH RECURSIVE n (i) AS ({more}) SELECT i FROM n"
        for n in range(TABLES):
            script += (
                f"CREATE TABLE big_{n} (id INT PRIMARY KEY AUTO_INCREMENT, k CHAR(32), x DOUBLE, KEY (k));"
                f"INSERT INTO big_{n} SELECT i, LEFT(SHA2(i + {n}, 256), 32), i / 7 FROM ({numbers}) AS numbers;"
            )
        mysql.run_sql(url, script)
        return OnMariadb(url, other)

    def destination(self) -> str:
        return self.other.database()

    def compare(self, destination: str) -> None:
        assert mysql.definitions(destination) == mysql.definitions(self.source)
        assert mysql.checksums(destination) == mysql.checksums(self.source)


@dataclass(frozen=True, slots=True)
class OnPostgres:
    """A database of one server, restored to another."""

    source: str
    server: PostgresServer
    other: PostgresServer

    @staticmethod
    def seeded(server: PostgresServer, other: PostgresServer) -> "OnPostgres":
        url = server.database()
        seed.seed_database(url)
        postgres.run_sql(
            url,
            "".join(
                f"CREATE TABLE big_{n} (id int PRIMARY KEY, k text, x float8); CREATE INDEX ON big_{n} (k);"
                f"INSERT INTO big_{n} SELECT i, md5(i || '{n}'), i / 7.0 FROM generate_series(1, {ROWS}) i;"
                for n in range(TABLES)
            ),
        )
        return OnPostgres(url, server, other)

    def destination(self) -> str:
        return self.other.database()

    def compare(self, destination: str) -> None:
        proof.compare_databases(self.source, destination)
        proof.compare_schemas(self.server.bin_dir, self.source, destination)


@dataclass(slots=True)
class OnSqlite:
    """A file, restored to others."""

    source: str
    file: Path
    destinations: int = 0

    @staticmethod
    def seeded(directory: Path) -> "OnSqlite":
        script = (_TORTURE / "exporters/sqlite/torture.sql").read_text()
        for n in range(TABLES):
            script += (
                f"CREATE TABLE big_{n} (id INTEGER PRIMARY KEY, k TEXT, x REAL); CREATE INDEX by_{n} ON big_{n} (k);"
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"
                f" INSERT INTO big_{n} SELECT i, hex(i * 7919 + {n}) || 'some more text', i / 7.0 FROM n;"
            )
        file = sqlite.run_sql(directory / "source.db", f"PRAGMA journal_mode = WAL; BEGIN; {script} COMMIT;")
        return OnSqlite(sqlite.url_of(file), file)

    def destination(self) -> str:
        self.destinations += 1
        return sqlite.url_of(self.file.with_name(f"destination-{self.destinations}.db"))

    def compare(self, destination: str) -> None:
        file = self.file.with_name(f"destination-{self.destinations}.db")
        assert destination == sqlite.url_of(file)
        assert sqlite.everything(file) == sqlite.everything(self.file)
        assert sqlite.schema_of(file) == sqlite.schema_of(self.file)
        assert sqlite.settings(file) == sqlite.settings(self.file)
        assert not list(self.file.parent.glob(f"{file.name}-*"))
        file.unlink()

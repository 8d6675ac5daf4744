"""Commands that bring a database after its source, and what has to be there at their end."""

from __future__ import annotations

from collections import Counter

from exporters.postgres.live_digests import live_tables
from migrate.custody.log import custody_log
from migrate.storage.registry import open_location
from tests.crash_points.custody_moves import make_key, succeed
from tests.crash_points.moves import ROWS, TABLES, Move
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres.databases import fetch, run_sql
from tests.exporters.sqlite import databases as sqlite
from tests.follow.move_case import write_move_case

OTHERS = "CREATE SEQUENCE tickets START 7; CREATE MATERIALIZED VIEW notes AS SELECT note FROM orders"
SINCE = """
UPDATE orders SET note = 'paid' WHERE id < 10; DELETE FROM orders WHERE id = 39; INSERT INTO shops VALUES (3, 'shop 3');
INSERT INTO orders VALUES (40, 3, 'new'); UPDATE orders SET id = 41 WHERE id = 11; SELECT nextval('tickets');
REFRESH MATERIALIZED VIEW notes;
"""
DAMAGE = """
UPDATE orders SET note = 'other' WHERE id < 10; DELETE FROM orders WHERE id = 39;
INSERT INTO orders VALUES (40, 2, 'more')
"""


class Restored(Move):
    """A database that is followed, and its destination as it was at the export."""

    follow = True

    def begin(self, number: int) -> None:
        server = self.servers["postgres"]
        self._forget()
        self.old, self.new = server.database(), server.database()
        run_sql(self.old, f"{TABLES}{ROWS}{OTHERS}; SELECT nextval('tickets')")
        self.folder = self.directory / f"move-{number}"
        self.folder.mkdir()
        write_move_case(self.folder, self.old, self.new, follow=self.follow)
        self.case = ["-c", str(self.folder / "moveout.toml")]
        succeed("export", *self.case)
        succeed("restore", *self.case)
        self.bundle = self.folder / "bundle"

    def _forget(self) -> None:
        """Free the slot of the try before: a server has few."""
        if self.follow and self.words:
            succeed("clean", *self.case, "--changes", "--yes")

    def equal(self) -> tuple[bool, object]:
        """Return whether the rows are the same, where the sequence stands, and the rows of a view."""
        return live_tables(self.old) == live_tables(self.new), fetch(
            self.new, "SELECT last_value, array(SELECT note FROM notes ORDER BY 1) FROM tickets"
        )


class Follow(Restored):
    """What was written since the export is captured and applied."""

    def begin(self, number: int) -> None:
        super().begin(number)
        for statement in SINCE.split(";")[:-1]:
            run_sql(self.old, statement)
        self.words = ["follow", *self.case, "--until-caught-up"]

    def outcome(self) -> object:
        return self.equal()


class Cutover(Follow):
    """The old database is held, the rest arrives, both are compared, and a record says so."""

    def begin(self, number: int) -> None:
        super().begin(number)
        self.undo_file = self.folder / "undo.json"
        self.words = ["cutover", *self.case, "--hold", "--yes", "--undo-file", str(self.undo_file)]
        self.words += ["--key", str(make_key(self.directory, "host"))]

    def outcome(self) -> object:
        held = fetch(self.old, "SHOW default_transaction_read_only")
        log = custody_log.read(open_location(str(self.bundle)))
        return self.equal(), held, Counter(entry.what.event for entry in log.entries), self.undo_file.exists()


class CutoverUndo(Cutover):
    """The old database is released again. Where that was done, the command says that there is nothing to undo."""

    end_codes = (0, 2)

    def begin(self, number: int) -> None:
        super().begin(number)
        succeed(*self.words)
        self.words = ["cutover", *self.case, "--undo", "--undo-file", str(self.undo_file), *self.words[-2:]]


class SyncPostgres(Restored):
    """A database is brought to another server by one command, which afterwards brings what has changed."""

    def begin(self, number: int) -> None:
        server = self.servers["postgres"]
        self._forget()
        self.old, self.new = server.database(), server.database()
        run_sql(self.old, TABLES + ROWS + OTHERS)
        work = self.directory / f"work-{number}"
        self.case = ["-c", str(work / "moveout.toml")]
        self.words = ["sync", f"app={self.old}", f"app={self.new}", "--work", str(work)]

    def outcome(self) -> object:
        first = self.equal()
        for statement in SINCE.split(";")[:-1]:
            run_sql(self.old, statement)
        succeed(*self.words)
        return first, self.equal()


class SyncMariadb(Move):
    """The same with MariaDB."""

    def begin(self, number: int) -> None:
        self.old, self.new = (self.servers[name].database() for name in ("followed_mariadb", "mariadb"))
        mysql.run_sql(self.old, TABLES + ROWS)
        work = self.directory / f"work-{number}"
        self.words = ["sync", f"app={self.old}", f"app={self.new}", "--work", str(work)]

    def outcome(self) -> object:
        results = []
        for note in ("paid", "sent"):
            mysql.run_sql(self.old, f"UPDATE orders SET note = '{note}' WHERE id < 10")
            succeed(*self.words)
            results.append(
                [mysql.fetch(url, "SELECT * FROM orders ORDER BY id") for url in (self.old, self.new)]
            )
            assert results[-1][0] == results[-1][1]
        return results


class SyncSqlite(Move):
    """A file is brought to another one by one command, which afterwards brings what has changed."""

    def begin(self, number: int) -> None:
        self.old, self.new = (self.directory / f"{name}-{number}.db" for name in ("old", "new"))
        sqlite.run_sql(self.old, TABLES + ROWS)
        urls = [f"app={sqlite.url_of(path)}" for path in (self.old, self.new)]
        self.words = ["sync", *urls, "--work", str(self.directory / f"work-{number}")]

    def outcome(self) -> object:
        results = []
        for note in ("paid", "sent", "lost"):
            sqlite.run_sql(self.old, f"UPDATE orders SET note = '{note}' WHERE id < 10")
            succeed(*self.words)
            results.append([sqlite.fetch(path, "SELECT * FROM orders") for path in (self.old, self.new)])
            assert results[-1][0] == results[-1][1]
        return results


class Repair(Restored):
    """Rows that differ from the bundle's become equal to them."""

    follow = False

    def begin(self, number: int) -> None:
        super().begin(number)
        for statement in DAMAGE.split(";"):
            run_sql(self.new, statement)
        self.words = ["verify", str(self.bundle), "--against", f"app={self.new}", "--repair"]

    def outcome(self) -> object:
        return self.equal()


FOLLOW_MOVES: dict[str, type[Move]] = {
    "follow-postgres": Follow,
    "cutover-postgres": Cutover,
    "cutover-undo-postgres": CutoverUndo,
    "sync-postgres": SyncPostgres,
    "sync-mariadbs": SyncMariadb,
    "sync-sqlite": SyncSqlite,
    "repair-postgres": Repair,
}

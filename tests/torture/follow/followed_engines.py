"""PostgreSQL, MySQL and MariaDB, as tests that break servers see them: how to start, write to, read and spoil each."""

from tests.exporters.mysql import databases as mysql_databases
from tests.exporters.mysql.changes.test_change_log import purge
from tests.exporters.postgres import databases as postgres_databases
from tests.follow import mysql_transfers
from tests.follow.test_faults import drop_slot
from tests.torture.follow import test_cutover_kills

WRITERS = 6
"""Few enough that their server and the others of a round have their processors for what is tested."""


class Postgres:
    """A followed PostgreSQL. ``hold_words``: what its hold needs besides. ``lost_log``: what names the lost changes."""

    name = "postgres"
    hold_words: tuple[str, ...] = ()
    lost_log = r"the replication slot \S+ does not exist any more: .* after [0-9A-F]+/[0-9A-F]+ "
    fetch = staticmethod(postgres_databases.fetch)
    bank = test_cutover_kills.BANK
    check_transfers = staticmethod(test_cutover_kills.check_transfers)

    def start(self, servers, name):
        return servers.postgres(name, settings=["wal_level=logical"])

    def end(self, servers, server):
        servers.end(server)

    def run_sql(self, url, script):
        postgres_databases.run_sql(url, script)

    def write(self, _server, url):
        """Start writers that come back when the server does."""
        return test_cutover_kills.Writers(url, writers=WRITERS, comes_back=True)

    def log_readers(self, url):
        """The sessions that read the change log."""
        query = "SELECT active_pid FROM pg_replication_slots WHERE active_pid > 0 AND database = current_database()"
        return {pid for (pid,) in self.fetch(url, query)}

    def lose_log(self, url):
        """Drop the slot by hand."""
        ((slot,),) = self.fetch(
            url, "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
        )
        drop_slot(url, slot)


class Mysql:
    """A followed MySQL."""

    name = "mysql"
    hold_words: tuple[str, ...] = ()
    lost_log = r"the changes after binlog\.\d+:\d+ are gone: the server has purged its binary log"
    fetch = staticmethod(mysql_databases.fetch)
    bank = mysql_transfers.BANK
    settings = ("binlog-format=ROW", "binlog-row-metadata=FULL", "innodb-flush-log-at-trx-commit=1")
    """What a server has acknowledged is there after a kill."""

    def start(self, servers, name):
        return getattr(servers, self.name)(name, settings=self.settings)

    def end(self, _servers, server):
        server.child.stop()

    def run_sql(self, url, script):
        mysql_databases.run_sql(url, script)

    def write(self, server, url):
        return mysql_transfers.Application(server, url, writers=WRITERS, comes_back=True)

    def check_transfers(self, old, new, application):
        mysql_transfers.check_transfers(old, new, application)
        every_transfer = "SELECT * FROM log ORDER BY id"
        assert self.fetch(new, every_transfer) == self.fetch(old, every_transfer)

    def log_readers(self, url):
        query = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
        return {number for (number,) in self.fetch(url, query)}

    def lose_log(self, url):
        """Purge the binary log by hand, as soon as nobody reads it."""
        self.run_sql(url, "FLUSH BINARY LOGS")
        purge(url, self.fetch(url, "SHOW BINARY LOGS")[-1][0])


class Mariadb(Mysql):
    """A followed MariaDB."""

    name = "mariadb"
    hold_words = ("--whole-server",)


ENGINES = {engine.name: engine for engine in (Postgres(), Mysql(), Mariadb())}

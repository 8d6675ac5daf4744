"""What a server and an account need so that changes can be followed by the binary log, and the SQL that gives it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pymysql
from msgspec import Struct

from exporters.changes import NotFollowed
from exporters.mysql.catalog import MysqlTable
from exporters.mysql.changes.binlog_files import read_status
from exporters.mysql.connection import Connection
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.sessions.account_rights import AccountRights
from exporters.mysql.sessions.server_settings import set_statements

_SETTINGS = {"binlog_format": "ROW", "binlog_row_metadata": "FULL"}
"""What they have to be, where a server has them. Both can be set while it runs; sessions that are open keep their
format.
"""
_KEEPS_HISTORY = """
SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'SYSTEM VERSIONED'
ORDER BY 1 LIMIT 1
"""
_SPATIAL = """
SELECT DISTINCT TABLE_NAME FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = DATABASE() AND INDEX_TYPE = 'SPATIAL'
"""
_SPATIAL_ONLY = "no primary key, and MariaDB does not find the rows of a log by a SPATIAL key"
_RETENTION = ("binlog_expire_logs_seconds", "expire_logs_days")


class Obstacle(Struct, frozen=True):
    """Why changes cannot be followed. ``remedy``: what mends it; ``is_sql``: it can be run as it is."""

    problem: str
    remedy: str
    is_sql: bool = True


def obstacles(connection: Connection, rights: AccountRights) -> Iterator[Obstacle]:
    """Yield what is missing. Raises the driver's errors."""
    if (connection.variable("log_bin") or "OFF") not in {"ON", "1"}:
        remedy = "write log_bin = binlog into the server's configuration, and restart it"
        yield Obstacle("the server writes no binary log", remedy, is_sql=False)
    wrong = {
        name: value
        for name, needed in _SETTINGS.items()
        if (value := connection.variable(name)) not in {needed, None}
    }
    if wrong:
        problem = ", ".join(f"{name} is {value}" for name, value in wrong.items())
        needed_values = {name: quote_literal(_SETTINGS[name]) for name in wrong}
        yield Obstacle(problem, set_statements(connection, needed_values))
    lacks_long_values = connection.is_mariadb and connection.variable("binlog_row_image") == "NOBLOB"
    if lacks_long_values and (table := connection.value(_KEEPS_HISTORY)) is not None:
        problem = f"binlog_row_image is NOBLOB: the history of {quote_name(str(table))} would get NULL for long values"
        yield Obstacle(problem, set_statements(connection, {"binlog_row_image": "'FULL'"}))
    if is_left_out(connection):
        remedy = "take binlog_do_db and binlog_ignore_db out of the server's configuration, and restart it"
        yield Obstacle(
            "the server's settings leave this database out of its binary log", remedy, is_sql=False
        )
    if _forgets_replicated(connection):
        remedy = "give the URL of the primary, or write log_slave_updates = ON into the configuration, and restart it"
        yield Obstacle("the server is a replica that does not log what it replicates", remedy, is_sql=False)
    monitor = ("BINLOG MONITOR", "REPLICATION CLIENT") if connection.is_mariadb else ("REPLICATION CLIENT",)
    for names in (("REPLICATION SLAVE",), monitor):
        if not any(rights.has(name, "*") for name in names):
            problem = f"{rights.account} has no {names[0]}"
            yield Obstacle(problem, f"GRANT {names[0]} ON *.* TO {rights.account};")


def tables_apart(
    connection: Connection, tables: Sequence[MysqlTable]
) -> list[tuple[MysqlTable, NotFollowed]]:
    """Return the tables whose changes cannot be followed, and why. Raises the driver's errors."""
    spatial = {str(name) for (name,) in connection.rows(_SPATIAL)} if connection.is_mariadb else set()
    apart = []
    for table in tables:
        label = f"{quote_name(connection.address.database)}.{table.label}"
        if not table.transactional:
            reason, change = f"{table.engine} has no transactions", "ENGINE = InnoDB"
        elif table.name in spatial and not table.key:
            reason, change = _SPATIAL_ONLY, "ADD PRIMARY KEY (…)"
        else:
            continue
        apart.append((table, NotFollowed(table.name, reason, f"ALTER TABLE {label} {change};")))
    return apart


def is_left_out(connection: Connection) -> bool:
    """Tell whether the server does not log what is written to the session's database. Raises the driver's errors."""
    status = read_status(connection) or {}
    only, without = (_names(status.get(name)) for name in ("binlog_do_db", "binlog_ignore_db"))
    database = connection.address.database.lower()
    return (bool(only) and database not in only) or database in without


def _names(listed: object) -> set[str]:
    return {name.strip().lower() for name in str(listed or "").split(",")} - {""}


def _forgets_replicated(connection: Connection) -> bool:
    """Tell whether a server is a replica whose log lacks what it replicates, as far as the account may ask."""
    setting = connection.variable("log_replica_updates") or connection.variable("log_slave_updates")
    if setting in {"ON", "1"}:
        return False
    statement = "SHOW ALL SLAVES STATUS" if connection.is_mariadb else "SHOW REPLICA STATUS"
    try:
        return bool(connection.named(statement))
    except pymysql.Error:
        return False


def kept_hours(connection: Connection) -> float | None:
    """Return for how long the server keeps its binary log; None where it is for ever. Raises the driver's errors."""
    seconds, days = (float(connection.variable(name) or 0) for name in _RETENTION)
    return (seconds / 3600 or days * 24) or None

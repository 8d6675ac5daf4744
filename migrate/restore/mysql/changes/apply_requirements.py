"""What a destination and an account need so that changes can be applied, and the SQL that gives it."""

from __future__ import annotations

from collections.abc import Iterator

from exporters.mysql.changes.log_requirements import Obstacle
from exporters.mysql.connection import Connection
from exporters.mysql.live_reader import counts_by_table
from exporters.mysql.sessions.account_rights import AccountRights
from exporters.mysql.sessions.server_settings import set_statements

_APPLIES = {True: ("BINLOG REPLAY", "SUPER"), False: ("BINLOG_ADMIN", "REPLICATION_APPLIER", "SUPER")}
"""The rights by which an account may use BINLOG: at MariaDB, and at MySQL. The first one is proposed."""
_TRIGGERS = "slave_run_triggers_for_rbr"
_SKIPPED = ("slave_skip_errors", "replica_skip_errors")
_LOSSY = ("slave_type_conversions", "replica_type_conversions")
_MODE = "slave_exec_mode"


def apply_obstacles(connection: Connection, rights: AccountRights) -> Iterator[Obstacle]:
    """Yield what is missing. Raises the driver's errors."""
    names = _APPLIES[connection.is_mariadb]
    if not any(rights.has(name, "*") for name in names):
        problem = f"{rights.account} has no {names[0]}, so it may not apply changes"
        yield Obstacle(problem, f"GRANT {names[0]} ON *.* TO {rights.account};")
    setting = connection.variable(_TRIGGERS)
    if setting not in {"NO", None}:
        problem = f"{_TRIGGERS} is {setting}, so triggers would act a second time"
        yield Obstacle(problem, set_statements(connection, {_TRIGGERS: "'NO'"}))
    yield from _silenced(connection)


def _silenced(connection: Connection) -> Iterator[Obstacle]:
    """Yield the settings of replicas by which the server would apply what does not fit, and not say so."""
    if (mode := connection.variable(_MODE)) not in {"STRICT", None} and connection.is_mariadb:
        problem = f"{_MODE} is {mode}, so changes that do not fit would be passed over"
        yield Obstacle(problem, set_statements(connection, {_MODE: "'STRICT'"}))
    for name in _LOSSY:
        if "ALL_LOSSY" in (setting := connection.variable(name) or ""):
            problem = f"{name} is {setting}, so values that do not fit would be cut"
            yield Obstacle(problem, set_statements(connection, {name: "''"}))
            break
    for name in _SKIPPED:
        if (setting := connection.variable(name) or "OFF") not in {"OFF", ""}:
            problem = f"{name} is {setting}, so changes that do not fit would be passed over"
            yield Obstacle(
                problem, f"take {name} out of the server's configuration, and restart it", is_sql=False
            )
            break


def uncounted_writes(connection: Connection, rights: AccountRights) -> Obstacle | None:
    """Return why the rows that are written to each table of a MySQL are not counted for the account; the cutover needs
    that to compare only rows that were written to. None where they are, and for a MariaDB, which counts by server.
    Raises the driver's errors.
    """
    if connection.is_mariadb or counts_by_table(connection) is not None:
        return None
    if not rights.has("SELECT", "performance_schema"):
        problem = f"{rights.account} has no SELECT on performance_schema, which counts writes by table"
        return Obstacle(problem, f"GRANT SELECT ON performance_schema.* TO {rights.account};")
    remedy = (
        "set performance_schema = ON and take its filters (setup_instruments, setup_actors, setup_objects) back to"
        " their defaults"
    )
    problem = "performance_schema is off or does not count all writes"
    return Obstacle(problem, remedy, is_sql=False)

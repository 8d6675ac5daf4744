"""Settings of a server: those on which statements of an application depend, and how to set some for good."""

from __future__ import annotations

from collections.abc import Mapping

from exporters.mysql.connection import Connection
from exporters.mysql.identifiers import quote_literal

_SETTINGS = (
    "auto_increment_increment", "auto_increment_offset", "default_week_format", "div_precision_increment",
    "event_scheduler", "explicit_defaults_for_timestamp", "foreign_key_checks", "group_concat_max_len",
    "innodb_ft_min_token_size", "lc_time_names", "lower_case_table_names", "sql_auto_is_null", "sql_mode",
    "system_time_zone", "time_zone", "transaction_isolation", "tx_isolation",
)  # fmt: skip


def server_settings(connection: Connection) -> dict[str, str]:
    """Return the settings with which sessions begin, one name for those of both kinds of servers. Raises the driver's
    errors.
    """
    names = ", ".join(map(quote_literal, _SETTINGS))
    values = {
        str(name): str(value)
        for name, value in connection.rows(f"SHOW GLOBAL VARIABLES WHERE variable_name IN ({names})")
    }
    if "tx_isolation" in values:
        values["transaction_isolation"] = values.pop("tx_isolation")
    is_named = connection.value("SELECT CONVERT_TZ('2000-01-01', 'Europe/Berlin', 'UTC') IS NOT NULL")
    values["names of time zones"] = "known" if is_named else "not known"
    if values.get("time_zone") != "SYSTEM":
        values.pop("system_time_zone", None)
    values["sql_mode"] = ",".join(sorted(values.get("sql_mode", "").split(",")))
    return values


_PERSISTS = (8, 0)


def set_statements(connection: Connection, settings: Mapping[str, str]) -> str:
    """Return a statement a line that sets each of the settings, which are values as SQL by name. MySQL keeps them by
    SET PERSIST (manual, "Persisted System Variables"). Other servers have no such statement, so a comment says what
    the option file needs.
    """
    keeps = not connection.is_mariadb and connection.release >= _PERSISTS
    word = "PERSIST" if keeps else "GLOBAL"
    statements = "\n".join(f"SET {word} {name} = {value};" for name, value in settings.items())
    if keeps:
        return statements
    lines = ", ".join(f"{name} = {value.strip(chr(39))}" for name, value in settings.items())
    return f"{statements} -- a restart forgets it: write into the option file, too: {lines}"

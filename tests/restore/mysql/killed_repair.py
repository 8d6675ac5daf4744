"""What a repair of MySQL or MariaDB leaves that is killed."""

import contextlib

import pymysql

from exporters.mysql.connection import parse_url
from exporters.mysql.definitions.show_create import trigger_names
from migrate.restore.mysql.destination import open_destination
from migrate.restore.mysql.existing_tables import dropped_triggers
from tests.exporters.mysql.databases import fetch


def kill_repair(url, table):
    """Let the server end the session of a repair while the triggers of a table are dropped."""
    with open_destination(parse_url(url)) as destination, contextlib.suppress(pymysql.Error):
        connection = destination.connection
        with dropped_triggers(connection, table, trigger_names(connection, table)):
            connection.run(f"KILL CONNECTION {connection.value('SELECT CONNECTION_ID()')}")
    assert not fetch(url, f"SHOW TRIGGERS LIKE '{table}'")

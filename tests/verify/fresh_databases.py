"""A fresh database on each engine, with what its class makes in it, and a directory for its bundle."""

import sqlite3
from contextlib import closing

from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres
from tests.exporters.sqlite import databases as sqlite


class PostgresDatabase:
    """A database on a PostgreSQL server. ``make``: the statements that fill it."""

    make = ""
    server_fixture = "postgres"
    engine = postgres

    def __init__(self, server, directory):
        self.server = server
        self.url = server.database()
        self.location = directory / "bundle"
        self.engine.run_sql(self.url, self.make)

    def run(self, *statements):
        for statement in statements:
            self.engine.run_sql(self.url, statement)

    def fetch(self, query):
        return self.engine.fetch(self.url, query)

    def export(self):
        assert self.engine.export_database(self.url, self.location).complete


class MariadbDatabase(PostgresDatabase):
    """The same on a MariaDB server."""

    server_fixture = "mariadb"
    engine = mysql


class SqliteDatabase:
    """The same as a SQLite file."""

    make = ""
    server_fixture = ""

    def __init__(self, server, directory):
        self.server = server
        self.path = directory / "source.db"
        self.url = sqlite.url_of(self.path)
        self.location = directory / "bundle"
        sqlite.run_sql(self.path, self.make)

    def run(self, *statements):
        with closing(sqlite3.connect(self.path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def fetch(self, query):
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    def export(self):
        assert sqlite.export_file(self.path, self.location).complete


def exported_database(request, directory):
    """Make a database of the class that is the parameter of a fixture, and export it."""
    fixture = request.param.server_fixture
    database = request.param(request.getfixturevalue(fixture) if fixture else None, directory)
    database.export()
    return database

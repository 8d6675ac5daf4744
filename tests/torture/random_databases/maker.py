"""A random database on a server, from a seed."""

import random

import pymysql

from tests.exporters.mysql.databases import open_database
from tests.torture.random_databases.programs import Programs
from tests.torture.random_databases.tables import Tables

_CODECS = {"latin1": "cp1252", "ascii": "ascii"}


class Runner:
    """Runs statements; what the server refuses is no part of the database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = open_database(url)
        self.charset = "utf8mb4"
        self.count = 0
        self.refused: list[tuple[str, str]] = []

    def __call__(self, statement: str) -> bool:
        encoded = statement.encode(_CODECS.get(self.charset, "utf-8"), "replace")
        try:
            with self._session.cursor() as cursor:
                cursor.execute(encoded)
        except pymysql.err.InterfaceError:
            raise
        except pymysql.Error as error:
            self.refused.append((str(error), statement))
            if error.args[0] in {2006, 2013}:
                raise
            return False
        self.count += 1
        return True

    def close(self) -> None:
        self._session.close()


def make_database(url: str, seed: int | str, *, mariadb: bool) -> Runner:
    """Fill a database; return what was run."""
    dice = random.Random(f"random database {seed}")
    run = Runner(url)
    run("SET sql_mode = 'ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION'")
    run("SET time_zone = '+00:00', foreign_key_checks = 0, innodb_strict_mode = 0")
    run("SET NAMES utf8mb4")
    tables = Tables(dice, run, mariadb=mariadb)
    tables.make()
    if tables.found:
        Programs(dice, run, tables, mariadb=mariadb).make()
    run.close()
    return run

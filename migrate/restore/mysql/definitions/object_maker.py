"""Definitions into the destination, each under the settings it was made with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property

import pymysql

from exporters.mysql.client_charsets import codec_of
from exporters.mysql.connection import PINNED, Connection
from exporters.mysql.definitions.show_create import defaults_of, label_of, read_definition, set_sequence
from exporters.mysql.errors import is_about_the_thing, message_of, number_of
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.errors import MoveoutError, NotAllowedError, UsageError
from migrate.restore.mysql.definitions.recorded_definitions import Definition, step_of
from migrate.restore.mysql.definitions.table_ddl import undefaulted
from migrate.restore.mysql.destination import alter

_EXISTS = {1050, 1304, 1359, 1537}
_NO_ROW = 1032
"""The row of a sequence is not there: the server was killed before it had written that to its log."""
_NEEDS_PRIVILEGE = {1227, 1044, 1142, 1370, 1419}
_STEPS = {
    1418: "SET GLOBAL log_bin_trust_function_creators = 1 on the destination",
    1298: "load the time zones into the destination (mariadb-tzinfo-to-sql or mysql_tzinfo_to_sql /usr/share/zoneinfo)",
}
"""What lets a server make an object that it has refused, by the number of its error."""
_FULL = {1021, 1037, 1038, 1041, 1114, 1135, 3019}
"""The server has no room, memory or threads left."""
_NAME = r"(?:`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\"|'[^']*'|[\w$]+)"
_DEFINER = re.compile(rf"\s+DEFINER\s*=\s*{_NAME}(?:@{_NAME})?", re.IGNORECASE)
_ROLE = re.compile(
    rf"CREATE(?:\s+(?:OR\s+REPLACE|ALGORITHM\s*=\s*\w+))*\s+DEFINER\s*=\s*(?P<name>{_NAME})\s", re.IGNORECASE
)
"""A definer without a host is a role of MariaDB."""
_RUNS = re.compile(r"[\x00-\x7f]+|[\udc80-\udcff]+|[^\x00-\x7f\udc80-\udcff]+")
"""Runs of ASCII, of bytes as ``surrogateescape`` has them, of other characters."""
_BYTES = re.compile(r"[\udc80-\udcff]")
_CONVERT = "CONVERT(_utf8mb4 X'{text}' USING {charset})"
_CONVERTED = f"SELECT HEX({_CONVERT}), HEX(CONVERT({_CONVERT} USING utf8mb4))"


class ObjectMaker:
    """Makes objects in one database. ``notes`` collects what the user should know, ``left_out`` what is lost."""

    def __init__(self, connection: Connection, notes: list[str], left_out: list[str]) -> None:
        self._connection = connection
        self._notes, self._left_out = notes, left_out
        self._without_definers = False
        self._ours = False

    @cached_property
    def _collation(self) -> str:
        """The database's own, unless ``_database_as`` has set another one."""
        return str(self._connection.value("SELECT @@collation_database"))

    def set_database(self, definition: Definition) -> None:
        """Give the database the source's defaults, on which routines' and new tables' own depend."""
        if "comment" in definition and not self._connection.comments_databases:
            self._notes.append("the database's comment was left out: only MariaDB 10.5 and newer have any")
            definition = {**definition, "comment": ""}
        self._ours = True
        try:
            self._alter_database(defaults_of(definition))
        except pymysql.Error as exc:
            if needs_the_user(exc):
                raise
            self._left_out.append(f"{defaults_of(definition)} of the database: {message_of(exc)}")
        else:
            self._collation = definition["collation"]

    def _alter_database(self, words: str) -> None:
        self._connection.run(f"ALTER DATABASE {quote_name(self._connection.address.database)} {words}")

    def make(self, definition: Definition) -> None:
        """Make an object. If it is there, a run made it that could not note it. Raises ``pymysql.Error``."""
        if definition["kind"] == "trigger" and definition.get("table"):
            self._open(definition["table"])
        try:
            with self._database_as(definition):
                charset = self._charset(definition)
                with self._settings(definition, charset):
                    self._run(definition, charset)
        except pymysql.Error as exc:
            if number_of(exc) not in _EXISTS:
                raise
        if role := _ROLE.match(definition["sql"]):
            self._note_role(definition, role["name"])
        if definition["kind"] == "sequence":
            try:
                self._connection.rows(set_sequence(definition))
            except pymysql.Error as exc:
                if number_of(exc) != _NO_ROW:
                    raise
                self._connection.run(f"DROP SEQUENCE {quote_name(definition['name'])}")
                self.make(definition)
        if definition["kind"] == "table" and (columns := undefaulted(definition["sql"])):
            changes = ", ".join(f"ALTER COLUMN {name} DROP DEFAULT" for name in columns)
            if refusal := alter(self._connection, definition["name"], changes):
                self._left_out.append(
                    f"{step_of(definition)}: NULL is the default of {', '.join(columns)}: {refusal}"
                )

    def _note_role(self, definition: Definition, role: str) -> None:
        """Note where the destination lacks the role in whose name an object acts: it takes the name for an account."""
        made = read_definition(self._connection, definition["kind"], definition["name"])
        if not self._without_definers and not _ROLE.match(made["sql"]):
            self._left_out.append(
                f"definer of {label_of(definition)}: there is no role {role}, so the destination took it for an account"
            )

    def _open(self, table: str) -> None:
        """Let the server read a table's definition before a trigger's ``sql_mode`` could make it read another one."""
        with suppress(pymysql.Error):
            self._connection.rows(f"SELECT 1 FROM {quote_name(table)} LIMIT 0")

    @contextmanager
    def _database_as(self, definition: Definition) -> Iterator[None]:
        """Let the database have the collation that it had when a routine, trigger or event was made: the charset of its
        parameters and variables depends on it. A database that others use stays as it is.
        """
        collation = definition.get("database_collation")
        if collation is None or collation == self._collation:
            yield
        elif not self._ours:
            self._notes.append(
                f"{step_of(definition)}: made in a database of {self._collation} instead of {collation}"
            )
            yield
        else:
            self._alter_database(f"COLLATE {collation}")
            try:
                yield
            finally:
                self._alter_database(f"COLLATE {self._collation}")

    def make_views(
        self, views: Sequence[Definition], made: Callable[[Definition], None]
    ) -> list[tuple[Definition, pymysql.Error]]:
        """Make views in an order in which each finds what it needs; ``made`` notes one. Return those that the
        destination refuses: they need what is not there, as at the source, or what it has not. Raises ``MoveoutError``.
        """
        left = list(views)
        while True:
            waiting: list[tuple[Definition, pymysql.Error]] = []
            for view in left:
                try:
                    self.make(view)
                except pymysql.Error as exc:
                    if needs_the_user(exc):
                        raise ddl_error(exc, view) from exc
                    waiting.append((view, exc))
                else:
                    made(view)
            if len(waiting) == len(left):
                return waiting
            left = [view for view, _ in waiting]

    @contextmanager
    def _settings(self, definition: Definition, charset: str) -> Iterator[None]:
        """Let the session have what the object was made under. The statement is sent in the client's charset."""
        usual = self._connection.defining_mode
        mode = definition.get("sql_mode", usual)
        words = [f"sql_mode = {quote_literal(mode)}"] if mode != usual else []
        if "time_zone" in definition:
            words.append(f"time_zone = {quote_literal(definition['time_zone'])}")
        if "client" in definition:
            words.append(f"character_set_client = {charset}")
        if "connection" in definition:
            words.append(f"collation_connection = {definition['connection']}")
        if not words:
            yield
            return
        try:
            self._connection.run("SET SESSION " + ", ".join(words))
            yield
        finally:
            mode, zone = quote_literal(usual), PINNED["time_zone"]
            self._connection.run(f"SET NAMES utf8mb4, SESSION sql_mode = {mode}, SESSION time_zone = {zone}")

    def _charset(self, definition: Definition) -> str:
        """Return the charset of the client that made an object, or utf8mb4 where that has not all of its characters."""
        client = str(definition.get("client", "utf8mb4"))
        try:
            self._encoded(definition["sql"], client)
        except UnicodeEncodeError:
            words = f"{step_of(definition)}: made with client charset utf8mb4 instead of {client}"
            (self._left_out if _BYTES.search(definition["sql"]) else self._notes).append(words)
            return "utf8mb4"
        return client

    def _run(self, definition: Definition, charset: str) -> None:
        sql = self._encoded(definition["sql"], charset)
        if not self._without_definers:
            try:
                self._connection.raw.query(sql)
            except pymysql.Error as exc:
                if number_of(exc) not in _NEEDS_PRIVILEGE or not _DEFINER.search(definition["sql"]):
                    raise
                self._without_definers = True
                self._notes.append(
                    f"definers were left out, because the destination refused them: {message_of(exc)}"
                )
            else:
                return
        self._connection.raw.query(self._encoded(without_definer(definition["sql"]), charset))

    def _encoded(self, sql: str, charset: str) -> bytes:
        """Return a statement as a client of this charset sends it. Raises ``UnicodeEncodeError``."""
        try:
            return sql.encode(codec_of(charset), "surrogateescape")
        except UnicodeEncodeError:
            return b"".join(self._converted(run[0], charset) for run in _RUNS.finditer(sql))

    def _converted(self, text: str, charset: str) -> bytes:
        """Let the server convert characters. Raises ``UnicodeEncodeError`` for those that the charset has not."""
        plain = text.encode(errors="surrogateescape")
        if text.isascii() or _BYTES.match(text):
            return plain
        query = _CONVERTED.format(text=plain.hex(), charset=charset)
        converted, back = (bytes.fromhex(str(value)) for value in self._connection.rows(query)[0])
        if back != plain:
            raise UnicodeEncodeError(
                charset, text, 0, len(text), "the charset has not all of these characters"
            )
        return converted


def without_definer(sql: str) -> str:
    """Return a statement without the account in whose name the object acts."""
    return _DEFINER.sub("", sql, count=1)


def needs_the_user(error: BaseException) -> bool:
    """Tell whether a statement was refused for what somebody can and should change, or not at all: then the same
    command goes on later. Anything else concerns this object only, and the rest can do without it.
    """
    number = number_of(error)
    return not is_about_the_thing(error) or number in _NEEDS_PRIVILEGE or number in _STEPS or number in _FULL


def ddl_error(error: BaseException, definition: Definition) -> MoveoutError:
    """Return the error for an object that cannot be made."""
    reason = message_of(error)
    if number_of(error) in _NEEDS_PRIVILEGE:
        return NotAllowedError(
            f"{step_of(definition)} cannot be made: {reason}",
            next_step="grant the account ALL PRIVILEGES on the destination database, then run the same command again",
        )
    if (step := _STEPS.get(number_of(error))) is not None:
        return UsageError(
            f"{step_of(definition)} cannot be made: {reason}",
            next_step=f"{step}, then run the same command again",
        )
    return UsageError(
        f"{step_of(definition)} cannot be made: {reason}",
        next_step="compare the servers' kinds and versions; the statement is in schema/definitions.json of the bundle",
    )

"""The entries of pre-data into the destination. What the server refuses costs only itself and what needs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import psycopg
from msgspec import Struct

from exporters.postgres.identifiers import quote_name
from migrate.restore.postgres.definitions.column_order import Orders, describe_order, misordered, reordered
from migrate.restore.postgres.definitions.dump_script import DumpEntry, Name, Script, under_settings
from migrate.restore.postgres.definitions.extensions import MEMBER
from migrate.restore.postgres.definitions.optional_clauses import (
    COLLATION,
    GENERATED,
    Clause,
    Statement,
    parse_statement,
    with_late_validator,
)
from migrate.restore.postgres.definitions.refusals import (
    Workaround,
    ddl_error,
    first_line,
    is_refusal,
    is_superuser,
)

_TAKEN = (
    psycopg.errors.DuplicateFunction,
    psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateTable,
)
_ABSENT = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
)
"""The server's errors where an entry needs a missing object."""
_CREATES = re.compile(rb"^CREATE (?!EXTENSION |OR REPLACE )", re.MULTILINE)
"""What is refused where the object is there already."""
_OF_EXTENSION = """
SELECT min(e.extname) FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) AS o
WHERE d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
  AND o.schema = pg_catalog.quote_ident(%s) AND o.identity = ANY (
    SELECT o.schema || '.' || one FROM pg_catalog.unnest(%s::text[]) AS one)
"""
_OF_ROLES = "acl.c"
"""Where a server looks up roles by name (src/backend/utils/adt/acl.c): messages are in its language."""
_UNIMPORTANT = frozenset({"ACL", "COMMENT", "SECURITY LABEL"})
"""What is not worth a word where the object that it speaks of is missing."""
_OF_SERVER = frozenset({"FUNCTION", "PROCEDURE", "OPERATOR FAMILY"})
_NOT_GIVEN = frozenset({"01006", "01007"})
"""Warnings that some or all privileges were not revoked, or not granted: the role has no grant option for them."""
_INSTALL = "install its package on the destination server, and run the same command again"


class Refusal(Struct, frozen=True):
    """An entry that the server refuses, and its error."""

    entry: DumpEntry
    error: psycopg.Error

    @property
    def line(self) -> str:
        """The refusal as shown to users."""
        missing = isinstance(self.error, psycopg.errors.FeatureNotSupported | psycopg.errors.UndefinedFile)
        step = f": {_INSTALL}" if missing and self.entry.kind == "EXTENSION" else ""
        return f"{self.entry.label}: {first_line(self.error)}{step}"


def is_superusers(entry: DumpEntry) -> bool:
    """Tell whether an entry changes what is the server's or an extension's, as few others than superusers may."""
    of_server = entry.schema in {"pg_catalog", "information_schema"} and entry.kind in _OF_SERVER
    return of_server or entry.number == MEMBER


def holds_objects(
    connection: psycopg.Connection[Any], scripts: Sequence[Script], enough: Callable[[Iterable[bool]], bool]
) -> bool:
    """Tell whether the database has all objects of the scripts, or any: ``enough``. The server says it: it is asked to
    make each, and nothing of that is kept. False where the scripts make none.
    """
    entries = [entry for script in scripts for entry in script.entries if _CREATES.search(entry.sql)]
    if not entries:
        return False
    with connection.transaction(force_rollback=True), under_settings(connection, scripts[0]):
        return enough(_is_taken(connection, entry) for entry in entries)


def _is_taken(connection: psycopg.Connection[Any], entry: DumpEntry) -> bool:
    """Tell whether an object of the entry's name is there; of text search it shows as a violated unique key."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(entry.sql)
    except (*_TAKEN, psycopg.errors.UniqueViolation):
        return True
    except psycopg.Error as exc:
        if not is_refusal(exc, connection) and not isinstance(exc, psycopg.errors.InsufficientPrivilege):
            raise
    return False


class EntryMaker:
    """Makes entries within the caller's transaction. ``alone``: the database holds nothing else, so an object that is
    there already is the server's, and costs only the entry. ``privileged``: a refusal for lack of privileges costs only
    the entry, too; else it is raised, unless the entry is for superusers. ``orders``: in which order tables have their
    columns at the source. After ``make``, ``not_given`` has sentences about privileges that the server only warns that
    it has not given: also of those that are there already.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], *, alone: bool, privileged: bool, orders: Orders
    ) -> None:
        self._connection = connection
        self._alone = alone
        self._privileged = privileged
        self._orders = orders
        self._misordered: set[Name] = set()
        self._lost: list[str] = []
        self.not_given: list[str] = []
        self._warnings: list[str] = []

    def make(self, entries: Sequence[DumpEntry]) -> list[str]:
        """Make all entries that the server takes; return what is left out. Raises what is no refusal, and
        ``MoveoutError`` where an object of the user's is in the way.
        """
        self._connection.add_notice_handler(self._note_warning)
        try:
            return self._make(entries)
        finally:
            self._connection.remove_notice_handler(self._note_warning)

    def _make(self, entries: Sequence[DumpEntry]) -> list[str]:
        with self._connection.transaction():
            lines = self._all(entries)
            made = {(entry.schema, entry.name) for entry in entries if entry.kind == "TABLE"}
            self._misordered = made & misordered(self._connection, self._orders).keys()
            if self._misordered:
                raise psycopg.Rollback
        return self._all(entries) if self._misordered else lines

    def _note_warning(self, warning: psycopg.errors.Diagnostic) -> None:
        if warning.sqlstate in _NOT_GIVEN:
            self._warnings.append(warning.message_primary or "")

    def _all(self, entries: Sequence[DumpEntry]) -> list[str]:
        self._lost, self.not_given = [], []
        refusals = self._rounds(entries)
        while refusals and (reduced := self._reduce(refusals)) is not None:
            refusals = self._rounds([refusal.entry for refusal in refusals if refusal.entry is not reduced])
        return [*self._lost, *self._lines(refusals)]

    def _rounds(self, entries: Sequence[DumpEntry]) -> list[Refusal]:
        """Make entries, and try what is refused again as long as something of it succeeds."""
        refusals = self._some(entries)
        while refusals:
            again = self._some([refusal.entry for refusal in refusals])
            if len(again) == len(refusals):
                return again
            refusals = again
        return []

    def _some(self, entries: Sequence[DumpEntry]) -> list[Refusal]:
        """Make entries in one statement, or half of them and then the others where one is refused."""
        if not entries:
            return []
        special = any(self._is_misordered(entry) for entry in entries)
        if len(entries) == 1:
            if special and self._in_order(entries[0]):
                return []
            error = self._with_workaround(entries[0])
            return [] if error is None else [Refusal(entries[0], error)]
        spare = any(map(is_superusers, entries))
        if not special and self._error(b"".join(entry.sql for entry in entries), spare=spare) is None:
            return []
        middle = len(entries) // 2
        return [*self._some(entries[:middle]), *self._some(entries[middle:])]

    def _is_misordered(self, entry: DumpEntry) -> bool:
        return entry.kind == "TABLE" and (entry.schema, entry.name) in self._misordered

    def _in_order(self, entry: DumpEntry) -> bool:
        """Make a table with its columns in the source's order; False where the server does not take it so."""
        order = self._orders[entry.schema, entry.name]
        try:
            with self._connection.transaction(force_rollback=True):
                self._connection.execute(entry.sql)
                table = reordered(self._connection, entry, order)
        except psycopg.Error as exc:
            if not self._is_refusal(exc):
                raise
            return False
        if table is None or self._error(table.sql) is not None:
            return False
        if is_superuser(self._connection):
            self._connection.execute(table.as_inherited)
        elif table.inherited:
            self._lost.append(
                f"inheritance of columns {describe_order(table.inherited)} of {entry.label}: to keep their order they"
                " are its own here, too, and stay where its parent loses them"
            )
        return True

    def _with_workaround(self, entry: DumpEntry) -> psycopg.Error | None:
        """Make an entry, at last with a workaround; return why the server refuses it even so."""
        first: psycopg.Error | None = None
        for workaround in Workaround:
            error = self._error(entry.sql, entry, workaround, spare=is_superusers(entry))
            if error is None:
                return None
            first = first or error
        late = with_late_validator(entry)
        return None if late is not None and self._error(late) is None else first

    def _error(
        self,
        sql: bytes,
        entry: DumpEntry | None = None,
        workaround: Workaround = Workaround.NONE,
        *,
        keep: bool = True,
        spare: bool = False,
    ) -> psycopg.Error | None:
        """Run statements, or only try them; return why they are refused. ``spare``: some are of superusers'. Privileges
        of which the server only warns that they are not given are refused, too; of an ``entry`` they are noted.
        """
        self._warnings.clear()
        try:
            with self._connection.transaction(force_rollback=not keep):
                if entry is not None:
                    with workaround.given(self._connection, entry):
                        self._connection.execute(sql)
                    self._connection.execute("SELECT pg_catalog.set_config('search_path', '', true)")
                else:
                    self._connection.execute(sql)
                    if self._warnings:
                        raise psycopg.Rollback
        except psycopg.Error as exc:
            if not self._is_refusal(exc, spare=spare):
                raise
            return exc
        if entry is None and self._warnings:
            return psycopg.errors.InsufficientPrivilege(self._warnings[0])
        self.not_given += [f"{entry.label}: {warning}" for warning in self._warnings] if entry else []
        return None

    def _is_refusal(self, error: psycopg.Error, *, spare: bool = False) -> bool:
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return self._privileged or spare
        return is_refusal(error, self._connection)

    def _reduce(self, refusals: Sequence[Refusal]) -> DumpEntry | None:
        """Make the first object that the server takes without some clauses, which are lost; return its entry."""
        for refusal in refusals:
            if _is_about_nothing(refusal):
                continue
            statement = parse_statement(refusal.entry)
            if statement is None or not statement.optional():
                continue
            if self._error(statement.without(statement.optional()), keep=False) is not None:
                continue
            dropped = dict(self._refused_clauses(statement))
            self._connection.execute(statement.without(dropped))
            self._lost += [
                f"{clause.label} of {refusal.entry.label}: {why}" for clause, why in dropped.items()
            ]
            return refusal.entry
        return None

    def _refused_clauses(self, statement: Statement) -> Iterator[tuple[Clause, str]]:
        """Yield the clauses without which the server takes a statement, each with the reason. A table keeps all of its
        generation expressions or none: rows are written with or without such columns.
        """
        dropped = list(statement.optional())
        for group in _groups(dropped):
            rest = [clause for clause in dropped if clause not in group]
            error = self._error(statement.without(rest), keep=False)
            if error is None:
                dropped = rest
            else:
                yield from ((clause, f"{first_line(error)}{_kept(clause)}") for clause in group)

    def _lines(self, refusals: Sequence[Refusal]) -> list[str]:
        """Return sentences about refused entries. Raises ``MoveoutError`` where a user's object may be in the way."""
        lines = []
        for refusal in refusals:
            taken = isinstance(refusal.error, _TAKEN)
            extension = self._extension_with(refusal.entry) if taken else None
            if extension is not None:
                lines.append(f"{refusal.entry.label}: the extension {extension} has one of its own here")
            elif taken and not self._alone and not is_superusers(refusal.entry):
                raise ddl_error(refusal.error, refusal.entry.label) from refusal.error
            elif not _is_about_nothing(refusal):
                lines.append(refusal.line)
        return lines

    def _extension_with(self, entry: DumpEntry) -> str | None:
        """Return the extension that has the object here: at the source it was taken from it."""
        names = [quote_name(entry.name), entry.name]
        row = self._connection.execute(_OF_EXTENSION.encode(), (entry.schema, names)).fetchone()
        return row[0] if row else None


def _is_about_nothing(refusal: Refusal) -> bool:
    """Tell whether an entry describes an object that is missing, and not one whose privileges a missing role has. A
    NOT NULL has no name before version 18, and nothing else says that a comment on it is lost.
    """
    is_absent = isinstance(refusal.error, _ABSENT) and refusal.error.diag.source_file != _OF_ROLES
    is_of_constraint = (
        refusal.entry.name.startswith("CONSTRAINT ") and " ON DOMAIN " not in refusal.entry.name
    )
    is_unnamed = is_of_constraint and isinstance(refusal.error, psycopg.errors.UndefinedObject)
    return refusal.entry.kind in _UNIMPORTANT and is_absent and not is_unnamed


def _kept(clause: Clause) -> str:
    if clause.label.startswith(GENERATED):
        return "; its values come as they were"
    return "; it sorts by the database's collation" if clause.label.startswith(COLLATION) else ""


def _groups(clauses: Sequence[Clause]) -> list[Collection[Clause]]:
    """Return the clauses one by one, but all generation expressions together."""
    generated = [clause for clause in clauses if clause.label.startswith(GENERATED)]
    others: list[Collection[Clause]] = [[clause] for clause in clauses if clause not in generated]
    return [generated, *others] if generated else others

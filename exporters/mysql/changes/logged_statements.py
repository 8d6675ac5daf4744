"""Statements in the binary log: which of them concern a database, and what they do there.

With binlog_format=ROW these are definitions, TRUNCATE and savepoints. Other sessions may still write by statement. What
is not read as something harmless counts as a write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from exporters.mysql.changes.binlog_events import Query

_NAME = r"(?:`(?:[^`]|``)+`|[\w$\u0080-\uffff]+)"
_TABLE = rf"(?:(?P<database>{_NAME})\s*\.\s*)?(?P<table>{_NAME})"
_ONE_TABLE = re.compile(_TABLE)
_STRING = r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*\""""
_PLAIN_STRING = r"""'(?:[^']|'')*'|"(?:[^"]|"")*\""""
"""In sessions without escapes by a backslash."""
_QUOTED_NAME = r"`(?:[^`]|``)*`"
_COMMENT = r"/\*(?!M?!).*?\*/|--(?:[ \t][^\n]*)?(?:\n|$)|\#[^\n]*|/\*M?!\d*|\*/"
"""Comments; only the marks of comments that servers execute."""
_TOKENS, _PLAIN_TOKENS = (
    re.compile(rf"(?P<quoted>{string}|{_QUOTED_NAME})|{_COMMENT}", re.DOTALL)
    for string in (_STRING, _PLAIN_STRING)
)
_BLANKED = re.compile(rf"{_QUOTED_NAME}|(?P<string>{_STRING})", re.DOTALL)
_ANSI_QUOTES, _NO_BACKSLASH_ESCAPES = 0x4, 0x100000
"""Modes of the session in which a statement is to be read otherwise."""
_IF = r"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"
_WAIT = r"(?:\s+(?:NOWAIT|WAIT\s+\d+))?"
_FOR = re.compile(
    rf"SET\s+STATEMENT\s+(?:{_STRING}|{_QUOTED_NAME}|[^'\"`])*?\sFOR\s+", re.IGNORECASE | re.DOTALL
)
"""MariaDB: settings for the statement behind it alone."""
_ATOMIC = re.compile(r"^(CREATE\s.*)\sSTART\s+TRANSACTION$", re.IGNORECASE | re.DOTALL)
"""MySQL: a table that is made together with its first rows. Whoever repeats that would have to commit it."""
_TRUNCATE = re.compile(r"TRUNCATE\s+(?:TABLE\s+)?", re.IGNORECASE)
_ON_ONE = re.compile(
    rf"(?:ALTER\s+(?:ONLINE\s+|OFFLINE\s+|(?P<ignore>IGNORE)\s+)*TABLE\s+{_IF}"
    rf"|CREATE\s+(?P<anew>OR\s+REPLACE\s+)?TABLE\s+{_IF}"
    rf"|(?:CREATE|DROP)\s+(?:OR\s+REPLACE\s+)?(?:\w+\s+)*?INDEX\s+{_IF}{_NAME}\s+(?:USING\s+\w+\s+)?ON\s+)",
    re.IGNORECASE,
)
_DROP = re.compile(rf"DROP\s+TABLES?\s+{_IF}", re.IGNORECASE)
_RENAME = re.compile(rf"RENAME\s+TABLES?\s+{_IF}", re.IGNORECASE)
_DROP_DATABASE = re.compile(rf"DROP\s+(?:DATABASE|SCHEMA)\s+{_IF}(?P<database>{_NAME})", re.IGNORECASE)
_TO = re.compile(rf"{_WAIT}\s*\bTO\b\s*", re.IGNORECASE)
_NEXT = re.compile(rf"{_WAIT}\s*,\s*", re.IGNORECASE)
_RENAMED = re.compile(
    rf"\bRENAME\s+(?!(?:COLUMN|INDEX|KEY)\b)(?:(?:TO|AS)\b\s*|=\s*)?{_TABLE}", re.IGNORECASE
)
_EXCHANGED = re.compile(rf"\bEXCHANGE\s+PARTITION\s+{_NAME}\s+WITH\s+TABLE\s+{_TABLE}", re.IGNORECASE)
_PART_TO_TABLE = re.compile(rf"\bCONVERT\s+PARTITION\s+{_NAME}\s+TO\s+TABLE\s+{_TABLE}", re.IGNORECASE)
_TABLE_TO_PART = re.compile(rf"\bCONVERT\s+TABLE\s+{_IF}{_TABLE}\s+TO\s+PARTITION\b", re.IGNORECASE)
_OTHER_FILE = re.compile(
    r"\b(?:IMPORT|DISCARD)\s+(?:PARTITION\b.*?\s)?TABLESPACE\b", re.IGNORECASE | re.DOTALL
)
_PARTS = rf"(?P<parts>{_NAME}(?:\s*,\s*{_NAME})*)"
_PARTS_DROPPED = re.compile(rf"\bDROP\s+PARTITION\s+{_IF}{_PARTS}", re.IGNORECASE)
_PARTS_EMPTIED = re.compile(rf"\bTRUNCATE\s+PARTITION\s+{_PARTS}", re.IGNORECASE)
_COLUMN_DROPPED = re.compile(
    rf"\bDROP\s+(?:COLUMN\s+)?{_IF}(?!(?:COLUMN|IF|INDEX|KEY|PRIMARY|FOREIGN|CHECK|CONSTRAINT|PARTITION|DEFAULT)\b"
    rf"|SYSTEM\s+VERSIONING\b|PERIOD\s+FOR\b)(?P<column>{_NAME})",
    re.IGNORECASE,
)
_COLUMN_MADE = re.compile(
    rf"(?:\bADD\s+(?:COLUMN\s+)?{_IF}\(?|\bCHANGE\s+(?:COLUMN\s+)?{_IF}{_NAME}\s"
    rf"|\bRENAME\s+COLUMN\s+{_IF}{_NAME}\s+TO\s|(?<=,)(?!\s*(?:ADD|CHANGE|RENAME)\b))\s*(?P<column>{_NAME})",
    re.IGNORECASE,
)
_KEY_DROPPED = re.compile(rf"\bDROP\s+(?:FOREIGN\s+KEY|CONSTRAINT)\s+{_IF}(?P<key>{_NAME})", re.IGNORECASE)
_KEY_MADE = re.compile(
    rf"(?:\bCONSTRAINT\s+(?P<key>{_NAME})\s+)?\bFOREIGN\s+KEY\b\s*{_IF}(?:{_NAME}\s*)?\([^)]*\)\s*REFERENCES\s+{_TABLE}"
    r"\s*\([^)]*\)(?:\s*MATCH\s+\w+)?(?:\s*ON\s+(?:DELETE|UPDATE)\s+(?:RESTRICT|NO\s+ACTION)\b)?"
    r"\s*ON\s+(?:DELETE|UPDATE)\s+(?:CASCADE|SET)\b",
    re.IGNORECASE,
)
"""A foreign key that changes rows."""
_SAVEPOINT = re.compile(r"(?:SAVEPOINT\s|ROLLBACK\s+(?:WORK\s+)?TO\s)", re.IGNORECASE)
_ROLLBACK = re.compile(r"ROLLBACK(?:\s+WORK)?\s*;?$", re.IGNORECASE)
_COMMIT_PREPARED = re.compile(r"XA\s+COMMIT\s", re.IGNORECASE)
_HARMLESS = re.compile(
    r"(?:$|(?:CREATE|ALTER|DROP|RENAME|GRANT|REVOKE|SET|ANALYZE|OPTIMIZE|REPAIR|CHECK|FLUSH|INSTALL|UNINSTALL|BEGIN"
    r"|START|COMMIT|XA|RELEASE|LOCK|UNLOCK|USE)\b)",
    re.IGNORECASE,
)
"""Statements that write no rows, apart from those that are read above."""
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


class StatementKind(Enum):
    """What a statement does."""

    TRUNCATE = "truncate"
    DEFINITION = "definition"
    """It defines tables."""
    SAVEPOINT = "savepoint"
    WRITE = "write"
    """It writes rows by a statement: the log does not say which rows."""
    ROLLBACK = "rollback"
    """What the transaction has logged before is taken back, as where it has made a temporary table, too."""
    COMMIT_PREPARED = "commit prepared"
    """Commits what was prepared in two phases, in another place of the log."""
    END = "end"
    """The whole database is dropped."""


class Effect(Struct, frozen=True):
    """What one sees of a definition once it was made. ``gone`` and ``made``: tables that are then not there, and that
    are. ``replaced``: tables that have other rows since, which the log does not have. ``emptied``: tables without rows.
    ``columns_gone``: columns that are not there.
    ``parts_gone`` and ``parts_emptied``: the same of partitions. ``keys_gone``: foreign keys, by their names in
    small letters, that change no rows any more. ``keys_made``: tables to which there is one that does.
    """

    gone: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()
    columns_gone: tuple[str, ...] = ()
    parts_gone: tuple[str, ...] = ()
    parts_emptied: tuple[str, ...] = ()
    keys_gone: tuple[str, ...] = ()
    keys_made: tuple[str, ...] = ()


class LoggedStatement(Struct, frozen=True):
    """A statement that concerns a database. ``tables`` of it are those it names."""

    kind: StatementKind
    tables: tuple[str, ...]
    text: str
    effect: Effect = Effect()


class Names(Struct, frozen=True):
    """The database whose changes are read. ``folds``: its server takes capitals in names for small letters
    (``lower_case_table_names``).
    """

    database: str
    folds: bool = False

    def fold(self, name: str) -> str:
        """Return a name as the server's catalog and its rows have it."""
        return name.lower() if self.folds else name

    def is_ours(self, database: str) -> bool:
        """Tell whether a name in a statement is that of the database."""
        return self.fold(database) == self.fold(self.database)


def read_statement(query: Query, names: Names) -> LoggedStatement | None:
    """Return what a statement does in a database; None where it does nothing there that concerns rows."""
    text = plain_statement(query)
    while match := _FOR.match(text):
        text = text[match.end() :]
    text = _ATOMIC.sub(r"\1", text)
    statement = _read(text, query, names)
    if statement and (statement.kind is StatementKind.SAVEPOINT or statement.tables) and _UNREADABLE in text:
        return LoggedStatement(StatementKind.WRITE, (), text)
    return statement


def _read(text: str, query: Query, names: Names) -> LoggedStatement | None:
    if _SAVEPOINT.match(text):
        return LoggedStatement(StatementKind.SAVEPOINT, (), text)
    if match := _TRUNCATE.match(text):
        return _truncate(text, match.end(), query, names)
    if match := _ON_ONE.match(text):
        return _on_one(match, query, names)
    if match := _DROP.match(text):
        return _drop(text, match.end(), query, names)
    if match := _RENAME.match(text):
        return _rename(text, match.end(), query, names)
    if match := _DROP_DATABASE.match(text):
        is_ours = names.is_ours(_unquoted(match["database"]))
        return LoggedStatement(StatementKind.END, (), text) if is_ours else None
    if _ROLLBACK.match(text):
        return LoggedStatement(StatementKind.ROLLBACK, (), text)
    if _COMMIT_PREPARED.match(text):
        return LoggedStatement(StatementKind.COMMIT_PREPARED, (), text)
    if _HARMLESS.match(text) or not (
        names.is_ours(query.database) or names.fold(names.database) in names.fold(text)
    ):
        return None
    return LoggedStatement(StatementKind.WRITE, (), text)


def plain_statement(query: Query) -> str:
    """Return a statement without comments, and spaces before and after it; names in it are quoted by ` if at all."""
    is_ansi = query.sql_mode & _ANSI_QUOTES
    tokens = _PLAIN_TOKENS if query.sql_mode & _NO_BACKSLASH_ESCAPES else _TOKENS

    def plain(match: re.Match[str]) -> str:
        quoted = match["quoted"]
        if quoted and is_ansi and quoted.startswith('"'):
            return "`" + quoted[1:-1].replace('""', '"').replace("`", "``") + "`"
        return quoted or " "

    return tokens.sub(plain, query.text).strip()


def _unreadable(text: str) -> LoggedStatement:
    """Return a statement whose tables cannot be read: it may concern any."""
    return LoggedStatement(StatementKind.WRITE, (), text)


def _table(match: re.Match[str], query: Query, names: Names) -> str:
    """Return the name of a table of the database; "" for one of another database."""
    database = _unquoted(match["database"]) if match["database"] else query.database
    return names.fold(_unquoted(match["table"])) if names.is_ours(database) else ""


def _truncate(text: str, start: int, query: Query, names: Names) -> LoggedStatement | None:
    match = _ONE_TABLE.match(text, start)
    if match is None:
        return _unreadable(text)
    table = _table(match, query, names)
    return LoggedStatement(StatementKind.TRUNCATE, (table,), text) if table else None


def _drop(text: str, start: int, query: Query, names: Names) -> LoggedStatement | None:
    tables = []
    while True:
        match = _ONE_TABLE.match(text, start)
        if match is None:
            return _unreadable(text)
        tables.append(_table(match, query, names))
        following = _NEXT.match(text, match.end())
        if following is None:
            return _definition(text, tables, Effect(gone=_ours(tables)))
        start = following.end()


def _rename(text: str, start: int, query: Query, names: Names) -> LoggedStatement | None:
    pairs = []
    while True:
        before = _ONE_TABLE.match(text, start)
        to = _TO.match(text, before.end()) if before else None
        after = _ONE_TABLE.match(text, to.end()) if to else None
        if before is None or after is None:
            return _unreadable(text)
        pairs.append((_table(before, query, names), _table(after, query, names)))
        following = _NEXT.match(text, after.end())
        if following is None:
            return _definition(text, [name for pair in pairs for name in pair], _renamed(pairs))
        start = following.end()


def _renamed(pairs: Sequence[tuple[str, str]]) -> Effect:
    """Return what one sees of tables that were renamed one after the other. "" stands for other databases."""
    rows_of: dict[str, str] = {}
    were_there: list[str] = []
    for before, after in pairs:
        if before and before not in rows_of:
            were_there.append(before)
        rows = rows_of.pop(before, before)
        if after:
            rows_of[after] = rows
    made = [name for name, rows in rows_of.items() if rows != name]
    gone = _ours(name for name in were_there if name not in rows_of)
    is_visible = gone or any(name not in were_there for name in made)
    replaced = [name for name in made if not rows_of[name] or not is_visible]
    return Effect(gone=gone, made=_ours(made), replaced=_ours(replaced))


def _on_one(match: re.Match[str], query: Query, names: Names) -> LoggedStatement | None:
    """Read a definition of one table, which may say something of a second one."""
    text = _BLANKED.sub(lambda quoted: "''" if quoted["string"] else quoted[0], match.string)
    name = _ONE_TABLE.match(match.string, match.end())
    if name is None:
        return _unreadable(match.string)
    table = _table(name, query, names)
    others = {
        pattern: _table(other, query, names)
        for pattern in (_RENAMED, _EXCHANGED, _PART_TO_TABLE, _TABLE_TO_PART)
        if (other := pattern.search(text, match.end()))
    }
    effect = _renamed([(table, others[_RENAMED])]) if _RENAMED in others else Effect()
    if _EXCHANGED in others:
        effect = Effect(replaced=_ours([table, others[_EXCHANGED]]))
    if _PART_TO_TABLE in others:
        effect = Effect(made=_ours([others[_PART_TO_TABLE]]))
    if _TABLE_TO_PART in others:
        effect = Effect(gone=_ours([others[_TABLE_TO_PART]]))
    dropped = [_unquoted(key["key"]).lower() for key in _KEY_DROPPED.finditer(text, match.end())]
    is_altered = match[0].upper().startswith("ALTER")
    made = list(_KEY_MADE.finditer(text, match.end())) if is_altered else []
    made_names = {_unquoted(key["key"] or "").lower() for key in made}
    columns = _columns(_COLUMN_DROPPED, text, match.end()) if is_altered else []
    is_new_column = not {*columns}.isdisjoint(_columns(_COLUMN_MADE, text, match.end()))
    if match["ignore"] or is_new_column or _OTHER_FILE.search(text, match.end()):
        effect = replace(effect, replaced=_ours([table]))
    effect = replace(
        effect,
        emptied=_ours([table] if match["anew"] else []),
        columns_gone=() if is_new_column else tuple(columns),
        parts_gone=_parts(_PARTS_DROPPED, text, match.end()),
        parts_emptied=_parts(_PARTS_EMPTIED, text, match.end()),
        keys_gone=tuple(key for key in dropped if key not in made_names),
        keys_made=_ours(names.fold(_unquoted(key["table"])) for key in made),
    )
    return _definition(match.string, [table, *others.values()], effect)


def _columns(pattern: re.Pattern[str], text: str, start: int) -> list[str]:
    """Return the names of columns, in small letters."""
    return [_unquoted(match["column"]).lower() for match in pattern.finditer(text, start)]


def _parts(pattern: re.Pattern[str], text: str, start: int) -> tuple[str, ...]:
    match = pattern.search(text, start)
    return tuple(_unquoted(part[0]) for part in re.finditer(_NAME, match["parts"])) if match else ()


def _definition(text: str, tables: Sequence[str], effect: Effect) -> LoggedStatement | None:
    ours = _ours(tables)
    return LoggedStatement(StatementKind.DEFINITION, ours, text, effect) if ours else None


def _ours(tables: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, tables)))


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name

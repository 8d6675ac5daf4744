"""Which part of a source is restored: ``--only schema``, ``--only data``, ``--only TABLE``; or what earlier restores
left out.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from migrate.bundle.catalog import CatalogRow, did_you_mean
from migrate.errors import NotEmptyError, UsageError
from migrate.number_text import list_words

SCHEMA, DATA = "schema", "data"
LEFT_OUT = "left-out"
"""The word for what earlier restores left out. Users do not type it."""


class RestoreSelection(Struct, frozen=True):
    """``definitions`` and ``rows``: whether these are restored; ``tables`` of which tables, in the user's words
    (none: of all). ``left_out``: of the definitions those that earlier restores left out, and the rows of these tables
    (none: of none).
    """

    definitions: bool = True
    rows: bool = True
    tables: tuple[str, ...] = ()
    left_out: bool = False

    @staticmethod
    def parse(words: Iterable[str]) -> RestoreSelection:
        """Read the values of ``--only``. A table that is called ``schema`` or ``data`` is named with its schema."""
        distinct_words = list(dict.fromkeys(words))
        kinds = {word for word in distinct_words if word in {SCHEMA, DATA}}
        tables = tuple(sorted(word for word in distinct_words if word not in {*kinds, LEFT_OUT}))
        left_out = LEFT_OUT in distinct_words
        return RestoreSelection(not kinds or SCHEMA in kinds, not kinds or DATA in kinds, tables, left_out)

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self == RestoreSelection()

    @property
    def is_part(self) -> bool:
        """Whether only some tables and definitions are meant."""
        return bool(self.tables) or self.left_out

    def words(self) -> str:
        """Return one text that is the same for the same selection, empty for everything."""
        if self.is_everything:
            return ""
        kinds = [word for word, selected in ((SCHEMA, self.definitions), (DATA, self.rows)) if selected]
        left_out = [LEFT_OUT] if self.left_out else []
        return ", ".join(map(_quoted, [*left_out, *(kinds if len(kinds) == 1 else []), *self.tables]))

    @staticmethod
    def split_words(text: str) -> list[str]:
        """Return the words of ``--only`` that ``words`` has made one text of."""
        return next(csv.reader([text], skipinitialspace=True), [])

    def choose(self, tables: Sequence[CatalogRow]) -> list[CatalogRow]:
        """Return the selected rows of the catalog; a partitioned table stands for its partitions, a virtual one for
        its shadow tables. Raises ``UsageError`` for a word that names no table, or several.
        """
        if not self.is_part:
            return list(tables)
        chosen = {row.key for word in self.tables for row in _named(word, tables)}
        return [row for row in tables if row.key in chosen]

    def conflict(
        self, names: Sequence[str], has: Callable[[str], bool], has_rows: Callable[[str], bool], where: str
    ) -> NotEmptyError | None:
        """Return the error for the first selected table that prevents the restore: one that exists already or, where
        only rows are restored, one with rows. ``has`` and ``has_rows`` ask the destination ``where``. Raises
        ``UsageError`` where rows have no table to go to.
        """
        if self.definitions:
            present = next((f"table {name}" for name in names if has(name)), "")
        else:
            require_tables([name for name in names if not has(name)], where)
            present = next((f"table {name} with rows in it" for name in names if has_rows(name)), "")
        if not present:
            return None
        step = "drop that table" if self.definitions else "empty that table"
        return NotEmptyError(f"{where} has the {present} already", next_step=f"{step}, or leave it out")

    def names(self, tables: Sequence[CatalogRow]) -> set[tuple[str, str]]:
        """Return (schema, name) of the selected tables, the partitioned ones above them included."""
        return {name for row in self.choose(tables) for name in (row.key, *ancestors(row))}


def require_tables(missing: Sequence[str], where: str) -> None:
    """Raise ``UsageError`` where rows have no table to go to."""
    if missing:
        raise UsageError(
            f"{where} has no table {list_words(missing, 1)}", next_step="restore with --only schema first"
        )


def strange_trigger(trigger: str, table: str, where: str) -> NotEmptyError:
    """Return the error for a trigger that fires for every row, is not the bundle's, and must not be dropped."""
    return NotEmptyError(
        f"{where}: the trigger {trigger} of table {table} is not as in the bundle, and would fire for every row",
        next_step="drop it, and make it again after the restore",
    )


def _quoted(word: str) -> str:
    """Return a word as a field of CSV, in quotes where it would be taken apart without them."""
    return '"{}"'.format(word.replace('"', '""')) if re.search(r'[",\r\n]|^\s', word) else word


def ancestors(row: CatalogRow) -> list[tuple[str, str]]:
    """Return the partitioned tables that a partition belongs to, nearest first; of a shadow table the virtual one."""
    above = [(str(schema), str(name)) for schema, name in row.details.get("ancestors", ())]
    return [*above, (row.schema, str(row.details["shadow_of"]))] if row.details.get("shadow_of") else above


def _named(word: str, tables: Sequence[CatalogRow]) -> list[CatalogRow]:
    matches: dict[tuple[str, str], list[CatalogRow]] = {}
    for row in tables:
        for schema, name in (row.key, *ancestors(row)):
            if word in {name, f"{schema}.{name}"}:
                matches.setdefault((schema, name), []).append(row)
    if not matches:
        raise UsageError(
            f"the bundle has no table {word}",
            next_step=f"{did_you_mean(word, tables)}it has {list_words([row.full_name for row in tables])}",
        )
    if len(matches) > 1:
        names = ", ".join(f"{schema}.{name}" for schema, name in sorted(matches))
        raise UsageError(f"{word} may be {names}", next_step="name the one that is meant with its schema")
    return next(iter(matches.values()))

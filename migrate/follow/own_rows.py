"""Which rows at a destination are moveout's own: a delta pass replaces no others.

A pass makes the destination equal to the source. Where the new side is in use already, what was written there would be
lost. So a table is written to only while it has the rows that the bundle has, or those that a pass has left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from msgspec.structs import replace
from xxhash import xxh3_64_hexdigest

from exporters.engine import part_reader_of
from exporters.errors import NotEqualError
from exporters.row_digest import to_hex
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_comparison import compare_table
from migrate.case.model import Endpoint
from migrate.changes.delta_record import DeltaRecord
from migrate.repair.live_repair import ComparedTable
from migrate.repair.row_sides import BundleRows


class OwnRows:
    """The guard of one pass; see ``TableGuard``. ``record`` is that of the passes before. ``open_bundle`` returns what
    was restored, None where that says nothing of the destination. ``overwrites``: others' rows are replaced, too.
    ``save`` records what is known, before a table is written to.
    """

    def __init__(
        self,
        name: str,
        destination: Endpoint,
        record: DeltaRecord,
        *,
        open_bundle: Callable[[], BundleReader | None],
        overwrites: bool,
        save: Callable[[DeltaRecord], None],
    ) -> None:
        self._record = record
        self._left, self._unsettled = dict(record.left), dict.fromkeys(record.unsettled)
        self._name, self._destination = name, destination
        self._open_bundle = open_bundle
        self._overwrites = overwrites
        self._save = save
        self._has_written = False

    def before_writing(self, table: ComparedTable) -> None:
        """See ``TableGuard``. Raises ``NotEqualError`` where somebody else has written to the table, and errors of the
        location.
        """
        is_new = not (table.destination.rows or table.label in self._left)
        is_allowed = self._overwrites or is_new or self._is_unknown(table)
        if not (is_allowed or self._is_left(table) or self._is_in_bundle(table)):
            raise NotEqualError(
                f"{table.label} of {self._name} has other rows at {self._destination.shown} than moveout has put"
                " there: a delta pass would replace what others have written",
                next_step="where the new side is in use, follow no more; where these rows may be lost, or types of"
                " columns were altered at both sides, moveout follow --overwrite replaces them",
            )
        self._unsettled[table.label] = None
        self._left.pop(table.label, None)
        self._has_written = True
        self.save()

    def when_equal(self, table: ComparedTable) -> None:
        """See ``TableGuard``."""
        self._unsettled.pop(table.label, None)
        self._left[table.label] = (_form(table), table.source.rows, to_hex(table.source.digest))

    def save(self) -> None:
        """Record what is known, if a table was written to. Raises errors of the location."""
        if self._has_written:
            self._save(self.noted_in(self._record))

    def noted_in(self, record: DeltaRecord) -> DeltaRecord:
        """Return a record with what is known now."""
        return replace(record, left=self._left, unsettled=[*self._unsettled])

    def _is_unknown(self, table: ComparedTable) -> bool:
        """Tell whether nobody knows what passes have left in a table: those of an older version recorded nothing."""
        has_record = bool(self._record.left or self._record.unsettled or not self._record.passes)
        return table.label in self._unsettled or not has_record

    def _is_left(self, table: ComparedTable) -> bool:
        """Tell whether a table is as the last pass has left it; also where that cannot be compared any more, since the
        table has other columns at both sides, or the servers have another hash.
        """
        form, *left = self._left.get(table.label, ("",))
        now = [table.destination.rows, to_hex(table.destination.digest)]
        return bool(form) and (form != _form(table) or left == now)

    def _is_in_bundle(self, table: ComparedTable) -> bool:
        """Tell whether a table has the rows of the bundle, or the bundle does not say what it should have."""
        if self._bundle is None:
            return table.label not in self._left
        reader, rows = self._bundle
        if (row := rows.get(table.label)) is None:
            return False
        columns = BundleRows(part_reader_of(self._destination.engine), reader, row).columns
        is_altered = bool(columns) and [*columns] != [*table.columns]
        digest = table.read_destination() if table.hash_name else table.destination
        return is_altered or compare_table(row, digest) is None

    @cached_property
    def _bundle(self) -> tuple[BundleReader, Mapping[str, CatalogRow]] | None:
        """What was restored, and its tables by label; read once, where it is needed."""
        if (reader := self._open_bundle()) is None:
            return None
        label = part_reader_of(self._destination.engine).label
        return reader, {label(row.schema, row.name): row for row in reader.tables(self._name)}


def _form(table: ComparedTable) -> str:
    """Return what has to be the same for two digests to be compared: the hash, and the columns."""
    return f"{table.hash_name or 'xxh3'} {xxh3_64_hexdigest(chr(0).join(table.columns).encode())}"

"""Which rows at a destination are moveout's own: a delta pass replaces no others.

A pass makes the destination equal to the source. Where the new side is in use already, what was written there would be
lost. So a table is written to only while it has the rows that the bundle has, or those that a pass has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

from msgspec.structs import replace
from xxhash import xxh3_64_hexdigest

from exporters.engine import part_reader_of
from exporters.errors import NotEqualError
from exporters.row_digest import RowsDigest, digest_texts, to_hex
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_comparison import compare_table
from migrate.case.model import Endpoint
from migrate.changes.delta_record import DeltaRecord, TableState, WrittenTable
from migrate.number_text import things
from migrate.repair.repair import ComparedTable
from migrate.repair.row_differences import RowChanges
from migrate.repair.row_sides import BundleRows


class OwnRows:
    """The guard of one pass; see ``TableGuard``. ``record`` is that of the passes before, ``written`` what one that was
    killed since may have left. ``open_bundle`` returns what was restored, None where that says nothing of the
    destination. ``overwrites``: others' rows are replaced, too. ``note`` writes down which states a table may have from
    now on, before it is written to.
    """

    def __init__(
        self,
        name: str,
        destination: Endpoint,
        record: DeltaRecord,
        written: Iterable[WrittenTable],
        *,
        open_bundle: Callable[[], BundleReader | None],
        overwrites: bool,
        note: Callable[[WrittenTable], None],
    ) -> None:
        self._record = record
        self._states: dict[str, Sequence[TableState]] = {
            label: [state] for label, state in record.left.items()
        } | {table.label: table.states for table in written}
        self._unsettled = set(record.unsettled) - {table.label for table in written if table.states}
        self._name, self._destination = name, destination
        self._open_bundle = open_bundle
        self._overwrites = overwrites
        self._note = note
        self._now: dict[str, RowsDigest] = {}

    def before_writing(self, table: ComparedTable, changes: RowChanges) -> None:
        """See ``TableGuard``. Raises ``NotEqualError`` where somebody else has written to the table, and errors of the
        location.
        """
        is_first = table.label not in self._now
        if is_first:
            self._require_own(table)
        elif table.hash_name:
            return  # the server hashes; all that is written there is one transaction
        before = after = self._now.get(table.label, table.destination)
        between: list[RowsDigest] = []
        if not table.hash_name:
            after = before - digest_texts([row.text for row in changes.gone]) + digest_texts(changes.new)
            between = [] if table.is_atomic else _row_by_row(before, changes)
        self._now[table.label] = after
        digests = dict.fromkeys([table.destination, before, *between, after, table.source])
        self._settle(table, [_state(table, digest) for digest in digests])

    def when_refused(self, table: ComparedTable) -> None:
        """See ``TableGuard``."""
        self._settle(table, ())

    def when_equal(self, table: ComparedTable) -> None:
        """See ``TableGuard``."""
        self._states[table.label] = [_state(table, table.source)]
        self._unsettled.discard(table.label)

    def noted_in(self, record: DeltaRecord) -> DeltaRecord:
        """Return a record with what is known now."""
        left = {label: states[0] for label, states in self._states.items() if len(states) == 1}
        unknown = self._unsettled.union(self._states.keys() - left.keys())
        return replace(record, left=left, unsettled=sorted(unknown))

    def _settle(self, table: ComparedTable, states: Sequence[TableState]) -> None:
        self._note(WrittenTable(table.label, self._record.passes, states))
        self._states[table.label] = states

    def _require_own(self, table: ComparedTable) -> None:
        states = self._states.get(table.label)
        is_new = not table.destination.rows and states is None
        is_allowed = self._overwrites or is_new or self._is_unknown(table)
        if is_allowed or (self._is_in_bundle(table) if states is None else _is_among(table, states)):
            return
        rows = things(table.destination.rows, "row")
        alike = ", what an event or job of the new side has done"
        alike += ", rows that moveout restore has left out" if states is None else ", a new restore"
        raise NotEqualError(
            f"{table.label} of {self._name} has other rows at {self._destination.shown} than moveout has put there"
            f" ({rows} now): a delta pass would replace what others have written",
            next_step="where the new side is in use, follow no more. Columns that were altered at both sides"
            f"{alike} look the same: where nothing there is to be kept, moveout follow --overwrite replaces it once",
        )

    def _is_unknown(self, table: ComparedTable) -> bool:
        """Tell whether it is unknown what passes have left in a table: those of an older version recorded nothing."""
        has_record = bool(self._record.left or self._record.unsettled or not self._record.passes)
        return table.label in self._unsettled or not (has_record or table.label in self._states)

    def _is_in_bundle(self, table: ComparedTable) -> bool:
        """Tell whether a table has the rows of the bundle, or the bundle does not say what it should have."""
        if self._bundle is None:
            return True
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


def _row_by_row(before: RowsDigest, changes: RowChanges) -> list[RowsDigest]:
    """Return the digest of a table after each of the changes, in their order."""
    digests = [before]
    for row in changes.gone:
        digests.append(digests[-1] - digest_texts([row.text]))
    for text in changes.new:
        digests.append(digests[-1] + digest_texts([text]))
    return digests


def _state(table: ComparedTable, digest: RowsDigest) -> TableState:
    return _form(table), digest.rows, to_hex(digest.digest)


def _is_among(table: ComparedTable, states: Sequence[TableState]) -> bool:
    """Tell whether a table has one of the states; also where that cannot be compared any more, since it has other
    columns at both sides, or the servers have another hash; and where none is known.
    """
    now = _state(table, table.destination)
    return now in [tuple(state) for state in states] or all(state[0] != now[0] for state in states)


def _form(table: ComparedTable) -> str:
    """Return what has to be the same for two digests to be compared: the hash, and the columns."""
    return f"{table.hash_name or 'xxh3'} {xxh3_64_hexdigest(chr(0).join(table.columns).encode())}"

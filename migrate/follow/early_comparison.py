"""The comparison of both sides before the hold, kept up to date while the source is written to.

See docs/internals/follow.md, "What the cutover compares". It has the digest of each table at the destination, as of a
mark. All rows whose keys the log does not name after that mark are equal on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from msgspec import Struct, field

from exporters.engine import KEYED_READERS, KeyedReader, KeyedRows, TableName, WriteState
from exporters.row_digest import RowsDigest
from exporters.touched_rows import RowKey, TouchedRows
from migrate.case.model import Endpoint
from migrate.changes.apply import Mark
from migrate.errors import UsageError
from migrate.follow.table_digests import Digests, live_reader

_BATCH_KEYS = 2_000
"""The rows of so many keys are read by one query."""
_MANY_KEYS, _COST_BY_KEY = 10_000, 8
"""Above so many keys, tables are compared whole where that is faster: finding a row by its key takes about as long as
reading so many rows in order.
"""
_DIFFERENT_BEFORE = "it was not the same on both sides before the hold"
Check = Callable[[], None]
Touched = Mapping[TableName, TouchedRows]


class EarlyComparison(Struct):
    """The tables that are equal. ``digests``: those of the destination as of ``mark``. ``states``: what both servers
    said before of the writes to each table. ``written``: the tables to which changes were applied since, and to how
    many rows; ``written_of_server``: what else the destination's server has counted of that. ``touched``: the tables
    whose changed rows were compared by their keys, and how many the last time. ``dropped``: the tables that have to be
    read whole under the hold, and why.
    """

    mark: Mark
    states: Mapping[TableName, tuple[WriteState, WriteState]]
    digests: dict[TableName, RowsDigest] = field(default_factory=dict)
    dropped: dict[TableName, str] = field(default_factory=dict)
    written: dict[TableName, int] = field(default_factory=dict)
    written_of_server: int = 0
    touched: dict[TableName, int] = field(default_factory=dict)

    def begin(
        self,
        source: KeyedRows,
        destination: KeyedRows,
        digests: tuple[Digests, Digests],
        touched: Touched,
        check: Check,
    ) -> None:
        """Take the tables that are equal but for the rows that were ``touched`` since the mark. ``digests``: of all
        rows on both sides. The source's may be from any moment since the mark.
        """
        at_source, at_destination = digests
        self.digests = {name: digest for name, digest in at_destination.items() if name in at_source}
        touched = self.with_exact_keys(self.comparable(touched), source)
        touched = self.with_exact_keys(touched, destination)
        touched_at_source, touched_at_destination = _digests_of_both(source, destination, touched, check)
        nothing = RowsDigest()
        for name, digest in [*self.digests.items()]:
            untouched = at_source[name] - touched_at_source.get(name, nothing)
            if untouched != digest - touched_at_destination.get(name, nothing):
                self.drop(name, _DIFFERENT_BEFORE)

    def drop(self, name: TableName, reason: str) -> None:
        """Exclude a table from the comparison: it is read whole under the hold."""
        if self.digests.pop(name, None) is not None:
            self.dropped[name] = reason

    def comparable(self, touched: Touched, *, is_held: bool = False) -> Touched:
        """Return the touched tables that can be compared by keys. Drop the others; where ``is_held``, also those that
        are read whole in less time.
        """
        for name in touched.keys() & self.digests.keys():
            keys, rows = len(touched[name].keys), self.digests[name].rows
            if touched[name].reason:
                self.drop(name, touched[name].reason)
            elif is_held and keys > _MANY_KEYS and keys * _COST_BY_KEY > rows:
                self.drop(name, "a large part of its rows was written to")
        return {name: table for name, table in touched.items() if name in self.digests}

    def with_exact_keys(self, touched: Touched, rows: KeyedRows) -> Touched:
        """Return the touched tables whose rows one side can find by their keys. Drop the others."""
        for name in [
            name for name, table in touched.items() if not rows.has_exact_keys(*name, table.columns)
        ]:
            self.drop(name, "equal values of its key may have several texts")
        return {name: table for name, table in touched.items() if name in self.digests}

    def add_written(
        self, written: Mapping[TableName, int], of_server: int, touched: Collection[TableName]
    ) -> None:
        """Note changes that were applied at the destination; drop the tables of which it is not known which rows of
        them were ``touched``.
        """
        self.written_of_server += of_server
        for name, rows in written.items():
            self.written[name] = self.written.get(name, 0) + rows
            if name not in touched:
                self.drop(name, "it was written to after the comparison before the hold")

    def take_round(
        self,
        source: KeyedRows,
        destination: KeyedRows,
        touched: Touched,
        later: Touched,
        before: Digests,
        check: Check,
    ) -> None:
        """Compare the rows that were touched by the changes applied since the mark; those that ``later`` changes have
        touched, too, are left to the next round. ``before``: the digests of all these rows at the destination before
        the changes were applied.
        """
        for name in [name for name in touched if name in later and later[name].reason]:
            self.drop(name, later[name].reason)
        touched = self.with_exact_keys(self.comparable(touched), source)
        settled = {name: _only(table, table.keys - _keys(later, name)) for name, table in touched.items()}
        unsettled = {name: _only(table, table.keys & _keys(later, name)) for name, table in touched.items()}
        at_source, at_destination = _digests_of_both(source, destination, settled, check)
        rest = digests_with_keys(destination, unsettled, check)
        for name, table in settled.items():
            if at_source[name] != at_destination[name]:
                key = _different_key(source, destination, name, table)
                self.drop(name, f"its rows with {key} are not the same on both sides")
                continue
            self.digests[name] += at_destination[name] + rest[name] - before[name]
            self.touched[name] = len(table.keys)

    def still_equal(self, states: Mapping[TableName, tuple[WriteState, WriteState]]) -> Digests:
        """Return the tables that are still equal, and drop the others. At the destination of a table that is equal only
        changes of the log were written, at its source nothing without the log. ``states``: the counts of both servers
        now.
        """
        for name in [*self.digests]:
            if reason := self._writes_besides_the_log(name, states):
                self.drop(name, reason)
        return dict(self.digests)

    def are_counted(self, states: Mapping[TableName, tuple[WriteState, WriteState]]) -> bool:
        """Tell whether the destination's server has counted all that was applied."""
        return all(
            (states[name][1].rows or 0) >= (self.states[name][1].rows or 0) + self.written.get(name, 0)
            for name in self.digests.keys() & states.keys() & self.states.keys()
        )

    def _writes_besides_the_log(
        self, name: TableName, states: Mapping[TableName, tuple[WriteState, WriteState]]
    ) -> str:
        if name not in states or name not in self.states:
            return "a server does not say whether it was written to"
        (source_before, destination_before), (source, destination) = self.states[name], states[name]
        if destination.identity != destination_before.identity:
            return "the destination's server says that it was changed, or counts anew"
        if source.identity != source_before.identity:
            return "the source's server says that it was changed, or counts anew"
        if destination.of_server is None or destination_before.of_server is None:
            if destination.last_write != destination_before.last_write:
                return "the destination's server does not count the rows that are written to it"
        elif destination.of_server != destination_before.of_server + self.written_of_server:
            if name in self.written or not _is_as_before(destination_before, destination):
                return "somebody else may have written to tables of the destination's server"
        elif destination.rows != _sum(destination_before.rows, self.written.get(name, 0)):
            return "somebody else may have written to it at the destination"
        is_quiet = (source.rows, source.last_write) == (source_before.rows, source_before.last_write)
        if name not in self.touched and not is_quiet:
            return "the source's server has counted writes that are not in the log"
        return ""


def keyed_rows(endpoint: Endpoint, *, is_one_moment: bool = False) -> AbstractContextManager[KeyedRows]:
    """Open one side; see ``KeyedReader``. Raises ``UsageError`` where its engine does not find rows by keys."""
    reader = live_reader(endpoint)
    if not isinstance(reader, KeyedReader):
        raise UsageError(f"rows of {endpoint.shown} cannot be found by their keys")
    return reader.keyed_rows(endpoint.url, secrets=endpoint.reveal(), is_one_moment=is_one_moment)


def digests_with_keys(rows: KeyedRows, touched: Touched, check: Check) -> dict[TableName, RowsDigest]:
    """Return the digests of touched rows of one side, by table. Several queries run at once: each waits for the disk
    of its server.
    """
    batches = [
        (name, table.columns, keys[start : start + _BATCH_KEYS])
        for name, table in touched.items()
        for keys in [list(table.keys)]
        for start in range(0, len(keys), _BATCH_KEYS)
    ]
    digests = {name: RowsDigest() for name in touched}

    def read(batch: tuple[TableName, Sequence[str], Sequence[RowKey]]) -> RowsDigest:
        check()
        name, columns, keys = batch
        return rows.digest_with_keys(*name, columns, keys)

    with ThreadPoolExecutor(KEYED_READERS) as pool:
        for (name, _, _), digest in zip(batches, pool.map(read, batches), strict=True):
            digests[name] += digest
    return digests


def _digests_of_both(
    source: KeyedRows, destination: KeyedRows, touched: Touched, check: Check
) -> tuple[Digests, Digests]:
    """Return the digests of touched rows on both sides, which are read at once."""
    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(digests_with_keys, rows, touched, check) for rows in (source, destination)]
        at_source, at_destination = (future.result() for future in reading)
    return at_source, at_destination


def _different_key(source: KeyedRows, destination: KeyedRows, name: TableName, table: TouchedRows) -> str:
    """Return the key of a row that is not the same on both sides, for people."""
    keys: list[RowKey] = list(table.keys)
    while len(keys) > 1:
        half = _only(table, set(keys[: len(keys) // 2]))
        digests = [
            digests_with_keys(rows, {name: half}, lambda: None)[name] for rows in (source, destination)
        ]
        keys = [*half.keys] if digests[0] != digests[1] else keys[len(keys) // 2 :]
    return source.key_text(*name, table.columns, keys[0])


def _is_as_before(before: WriteState, now: WriteState) -> bool:
    """Tell whether nothing at all was written to a table, by the time of its last write."""
    is_known = before.rewrites is not None and before.rewrites == now.rewrites
    return is_known and before.last_write == now.last_write


def _sum(before: int | None, more: int) -> int | None:
    return None if before is None else before + more


def _only(table: TouchedRows, keys: set[RowKey]) -> TouchedRows:
    return TouchedRows(table.columns, keys)


def _keys(touched: Touched, name: TableName) -> set[RowKey]:
    return touched[name].keys if name in touched else set()

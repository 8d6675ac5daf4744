"""Digests of the tables of both sides, and which of an earlier comparison still hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from exporters.engine import LiveReader, WriteCounters, live_reader_of
from exporters.row_digest import RowsDigest, to_hex
from migrate.bundle.findings import Finding
from migrate.case.model import Endpoint
from migrate.engines import registry

TableName = tuple[str, str]
Digests = Mapping[TableName, RowsDigest]


@dataclass(frozen=True, slots=True)
class EarlyComparison:
    """The tables that were equal on both sides while the source was in use. ``counters``: what both servers said before
    of how much was written to each.
    """

    equal: Digests
    counters: Mapping[TableName, tuple[str, str]]

    def unwritten(self, counters: Mapping[TableName, tuple[str, str]]) -> Digests:
        """Return those of which neither server says that it was written to since. ``counters``: what they say now."""
        return {
            name: digest
            for name, digest in self.equal.items()
            if name in counters and counters[name] == self.counters.get(name)
        }


def read_digests(
    source: Endpoint,
    destination: Endpoint,
    *,
    workers: int,
    without: Collection[TableName] = (),
    check: Callable[[], None] = lambda: None,
) -> tuple[Digests, Digests, list[Finding]]:
    """Return the digests of both sides' tables, but for those ``without``, and why one could not be read. Both are read
    at once. ``check`` is called now and then; what it raises ends the reading.
    """
    with ThreadPoolExecutor(2) as pool:
        reading = [
            pool.submit(_live_digests, side, workers, without, check) for side in (source, destination)
        ]
        source_read, destination_read = (future.result() for future in reading)
    findings = [
        Finding(table_label(name), f"could not be read at the {side}: {reason}")
        for side, (_, unread) in (("source", source_read), ("destination", destination_read))
        for name, reason in unread.items()
    ]
    return source_read[0], destination_read[0], findings


def read_counters(source: Endpoint, destination: Endpoint) -> Mapping[TableName, tuple[str, str]]:
    """Return what both servers say of how much was written to each table; none where one of them does not say so."""
    at_source, at_destination = (_counters(side) for side in (source, destination))
    both = at_source.keys() & at_destination.keys()
    return {name: (at_source[name], at_destination[name]) for name in both}


def differences(source_digests: Digests, destination_digests: Digests) -> list[Finding]:
    """Return the tables whose rows are not the same on both sides."""
    findings = []
    for name in sorted(source_digests.keys() | destination_digests.keys()):
        source, destination = source_digests.get(name), destination_digests.get(name)
        if source == destination:
            continue
        if source is None or destination is None:
            side = "source" if source is None else "destination"
            findings.append(Finding(table_label(name), f"is not at the {side}"))
        elif source.rows != destination.rows:
            findings.append(
                Finding(table_label(name), "has other rows", str(source.rows), str(destination.rows))
            )
        else:
            findings.append(
                Finding(
                    table_label(name), "has other values", to_hex(source.digest), to_hex(destination.digest)
                )
            )
    return findings


def recorded_digests(endpoint: Endpoint, *, workers: int) -> dict[str, tuple[int, str]]:
    """Return rows and digest of each table of one side, as a record has them."""
    return as_recorded(_live_digests(endpoint, workers)[0])


def as_recorded(digests: Digests) -> dict[str, tuple[int, str]]:
    """Return rows and digest of each table as a record has them."""
    return {table_label(name): (digest.rows, to_hex(digest.digest)) for name, digest in digests.items()}


def table_label(name: TableName) -> str:
    """Return the name of a table; engines without schemas have "" for that."""
    return ".".join(filter(None, name))


def _live_digests(
    endpoint: Endpoint,
    workers: int,
    without: Collection[TableName] = (),
    check: Callable[[], None] = lambda: None,
) -> tuple[Digests, Mapping[TableName, str]]:
    """Return the digests of a database's tables as of one moment, and why others could not be read."""
    unread: dict[TableName, str] = {}
    digests = _reader(endpoint).live_tables(
        endpoint.url,
        secrets=endpoint.reveal(),
        workers=workers,
        advance=lambda _rows, _size: check(),
        unread=unread,
        without=without,
    )
    return digests, unread


def _counters(endpoint: Endpoint) -> Mapping[TableName, str]:
    reader = _reader(endpoint)
    if not isinstance(reader, WriteCounters):
        return {}
    return reader.write_counters(endpoint.url, secrets=endpoint.reveal())


def _reader(endpoint: Endpoint) -> LiveReader:
    return live_reader_of(registry.engine_for(endpoint.url, endpoint.shown))

"""Digests of the tables of both sides, and the servers' counts of writes to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from exporters.engine import (
    LiveReader,
    LiveTables,
    TableName,
    TablesRequest,
    WriteCounters,
    WriteState,
    live_reader_of,
)
from exporters.row_digest import Advance, RowsDigest, to_hex
from migrate.bundle.findings import Finding
from migrate.case.model import Endpoint
from migrate.runtime.cancellation import CancellationToken, Cancelled

Result = TypeVar("Result")
Digests = Mapping[TableName, RowsDigest]


ReadTables = Callable[[TablesRequest], LiveTables]
"""Reads the digests of a database's tables, as of one moment; see ``LiveReader.live_tables``."""


def read_digests(
    source: ReadTables,
    destination: ReadTables,
    *,
    workers: int,
    without: Collection[TableName] = (),
    advance: Advance = lambda _rows, _size_bytes: None,
    cancellation: CancellationToken | None = None,
) -> tuple[Digests, Digests, list[Finding]]:
    """Return the digests of both sides' tables, except those in ``without``, and findings for tables that could not be
    read. Both sides are read at once. An error of one side, or of ``advance``, ends the reading of both.
    """
    over = (cancellation or CancellationToken()).child()

    def advance_together(rows: int, size_bytes: int) -> None:
        over.check()
        advance(rows, size_bytes)

    request = TablesRequest(workers, advance_together, without=without, tolerant=True)
    at_source, at_destination = together([partial(read, request) for read in (source, destination)], over)
    at_source, at_destination = (
        at_source.named_as(at_destination.digests),
        at_destination.named_as(at_source.digests),
    )
    findings = [
        Finding(table_label(name), f"could not be read at the {side}: {reason}")
        for side, tables in (("source", at_source), ("destination", at_destination))
        for name, reason in tables.unread.items()
    ]
    return at_source.digests, at_destination.digests, findings


def together(steps: Sequence[Callable[[], Result]], over: CancellationToken) -> list[Result]:
    """Do steps at once. The first error cancels the token ``over``, by which the other steps end, and is raised."""

    def done(step: Callable[[], Result]) -> Result:
        try:
            return step()
        except BaseException:
            over.cancel()
            raise

    with ThreadPoolExecutor(len(steps)) as pool:
        futures = [pool.submit(done, step) for step in steps]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, Cancelled)):
        raise error
    return [future.result() for future in futures]


def read_states(
    source: Endpoint, destination: Endpoint, *, is_settled: bool = False
) -> Mapping[TableName, tuple[WriteState, WriteState]]:
    """Return the counts of writes that both servers have for each table; none where one server has none.
    ``is_settled``: the counted writes at the destination have been committed or rolled back when this returns.
    """
    at_source = _write_states(source, is_settled=False)
    at_destination = _write_states(destination, is_settled=is_settled)
    both = at_source.keys() & at_destination.keys()
    return {name: (at_source[name], at_destination[name]) for name in both}


def uncounted_sessions(endpoint: Endpoint) -> Sequence[str]:
    """Return the sessions of others whose writes the server may not have counted yet."""
    reader = live_reader(endpoint)
    if not isinstance(reader, WriteCounters):
        return ()
    return reader.uncounted_sessions(endpoint.url, secrets=endpoint.reveal())


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


def recorded_digests(
    endpoint: Endpoint, *, workers: int, without: Collection[TableName] = (), names: Iterable[str] = ()
) -> dict[str, tuple[int, str]]:
    """Return rows and digest of each table of one side, but for those ``without``, as a record has them. ``names``: how
    the record spells them.
    """
    request = TablesRequest(workers, lambda _rows, _size_bytes: None, without=without, tolerant=True)
    return as_recorded(live_tables(endpoint)(request).named_as(("", name) for name in names).digests)


def as_recorded(digests: Digests) -> dict[str, tuple[int, str]]:
    """Return rows and digest of each table as a record has them."""
    return {table_label(name): (digest.rows, to_hex(digest.digest)) for name, digest in digests.items()}


def table_label(name: TableName) -> str:
    """Return the name of a table; engines without schemas have "" for that."""
    return ".".join(filter(None, name))


def live_tables(endpoint: Endpoint) -> ReadTables:
    """Return what reads the digests of a database as it is when they are asked for."""
    return partial(live_reader(endpoint).live_tables, endpoint.url, secrets=endpoint.reveal())


def live_reader(endpoint: Endpoint) -> LiveReader:
    """Return what reads the database of an endpoint."""
    return live_reader_of(endpoint.engine)


def _write_states(endpoint: Endpoint, *, is_settled: bool) -> Mapping[TableName, WriteState]:
    reader = live_reader(endpoint)
    if not isinstance(reader, WriteCounters):
        return {}
    return reader.write_states(endpoint.url, secrets=endpoint.reveal(), is_settled=is_settled)

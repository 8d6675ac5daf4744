"""A feed by asyncpg: blocks of COPY output, cut at the protocol's messages by the compiled core or by asyncpg.

Nothing imports this module before rows are read: see ``open_feed``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from exporters import _rows
from exporters.errors import SourceError
from exporters.postgres.chunk_plan import copy_statement
from exporters.postgres.errors import DRIVER_ERRORS, translate
from exporters.postgres.rows.copy_stream import PAUSE_SECONDS, SMALL_BYTES, copy_stream
from exporters.postgres.sessions.connection import PostgresAddress, pin_statement
from exporters.sql.open_connections import shut_socket, waking
from exporters.sql.row_blocks import RowBlocks, SentRows

FEED_ERRORS = (*DRIVER_ERRORS, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What asyncpg may raise while it talks to a server."""


class AsyncpgFeed:
    """Blocks of up to what one read of the socket brings. The loop runs only while more is waited for."""

    def __init__(self, address: PostgresAddress, options: dict[str, Any], timeouts: str) -> None:
        self._where = address.url
        self._loop = asyncio.new_event_loop()
        self._copying: asyncio.Task[str] | None = None
        try:
            self._connection = self._loop.run_until_complete(self._open(options, timeouts))
        except BaseException:
            self._loop.close()
            raise
        waking(self._where, self, AsyncpgFeed._wake)

    async def _open(self, options: dict[str, Any], timeouts: str) -> Any:
        connection = await asyncpg.connect(**options)
        try:
            await connection.execute(f"{pin_statement()}; {timeouts}")
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _translated(self, error: Exception) -> SourceError:
        return translate(error, self._where, is_passing=isinstance(error, asyncpg.InterfaceError))

    def _wake(self) -> None:
        """End what waits for the server, from another thread."""
        shut_socket(self._connection._transport.get_extra_info("socket").fileno())  # noqa: SLF001  nothing else has it

    def copy(self, sources: Sequence[str], encoding: str, *, in_pieces: bool) -> RowBlocks:
        """See ``Feed``. asyncpg cuts messages faster than Python does; the compiled core is faster than asyncpg."""
        if _rows.core is None and not in_pieces:
            for source in sources:
                yield from self._copy_by_asyncpg(source, encoding)
            return
        are_text = not in_pieces
        statements = "; ".join(copy_statement(source, encoding, are_text=are_text) for source in sources)
        try:
            yield from copy_stream(self._connection, self._loop, statements, are_text=are_text)
        except FEED_ERRORS as exc:
            raise self._translated(exc) from exc

    def _copy_by_asyncpg(self, query: str, encoding: str) -> RowBlocks:
        """Yield the rows of a query in brackets, a long one whole, and their count."""
        arrived: list[bytes | bytearray] = []

        async def keep(block: bytes | bytearray) -> None:
            arrived.append(block)
            self._loop.stop()

        async def copy() -> str:
            try:
                status: str = await self._connection.copy_from_query(
                    query, output=keep, format="csv", encoding=encoding
                )
            finally:
                self._loop.stop()
            return status

        task = self._copying = self._loop.create_task(copy())
        first = True
        try:
            while arrived or not task.done():
                for block in arrived:
                    yield block
                    if not first and len(block) < SMALL_BYTES:
                        time.sleep(PAUSE_SECONDS)
                    first = False
                arrived.clear()
                if not task.done():
                    self._loop.run_forever()
            yield SentRows(int(task.result().rpartition(" ")[2]))
        except FEED_ERRORS as exc:
            raise self._translated(exc) from exc

    def execute(self, statements: str) -> None:
        """See ``Feed``."""
        try:
            self._loop.run_until_complete(self._connection.execute(statements))
        except FEED_ERRORS as exc:
            raise self._translated(exc) from exc

    def close(self) -> None:
        """See ``Feed``."""
        if self._loop.is_closed():
            return
        self._connection.terminate()
        task = self._copying
        while task is not None and not task.done():  # the caller has not read the rest
            self._loop.run_forever()
        with suppress(Exception):
            if task is not None:
                task.result()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

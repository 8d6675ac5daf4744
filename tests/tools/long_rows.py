"""Rows that an export takes in pieces: which ones, and shorter ones than there are otherwise."""

from contextlib import contextmanager

import pytest

from exporters.mysql.rows import protocol_rows
from exporters.postgres.rows import asyncpg_feed, copy_feed, long_lines
from exporters.sql import chunk_export
from exporters.sql.large_values import long_values
from exporters.sqlite.rows import chunk_export as sqlite_chunk_export
from exporters.sqlite.rows import long_rows as sqlite_long_rows
from exporters.sqlite.rows import row_batches

UNIT = 2**18
"""Four of them are a MiB. A row of more than eight counts as long (``short_long_rows``), and is of several pieces."""


@pytest.fixture(scope="module", autouse=True)
def short_long_rows():
    """Let two MiB be long, where it is eight: what goes by in pieces is the same, and there is a quarter of it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (
            protocol_rows,
            copy_feed,
            asyncpg_feed,
            long_lines,
            long_values,
            sqlite_long_rows,
            sqlite_chunk_export,
            row_batches,
        ):
            patch.setattr(module, "LONG_BYTES", 8 * UNIT)
        patch.setattr(row_batches, "BATCH_BYTES", 8 * UNIT)
        yield


@contextmanager
def long_rows():
    """Lend the list of rows that go by in pieces meanwhile."""
    found = []
    real = chunk_export.ChunkExport.add_long
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            chunk_export.ChunkExport,
            "add_long",
            lambda self, row, *how: (found.append(row), real(self, row, *how)),
        )
        yield found

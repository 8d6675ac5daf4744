"""Transfers that can be killed: each in a process of its own."""

from __future__ import annotations

import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from migrate.runtime.progress import Silent
from migrate.storage.api import MIN_PART_BYTES, BaseStore
from migrate.storage.rate_limit import RateLimiter
from migrate.storage.registry import open_location
from migrate.storage.s3.store import S3Store
from migrate.transfer.run import transfer
from tests.export.victims import run

WORKERS = 3


def cut_smallest(patch: pytest.MonkeyPatch) -> None:
    """Let locations cut files into S3's smallest parts, so that large files can be small ones."""
    for store in (BaseStore, S3Store):
        patch.setattr(store, "part_bytes", lambda _store, _size_bytes: MIN_PART_BYTES)


def carry(origin: str, destination: str, rate: float | None) -> None:
    """Transfer a bundle in S3's smallest parts; 130 where it is interrupted."""
    limit = RateLimiter(rate) if rate else None
    with pytest.MonkeyPatch.context() as patch:
        cut_smallest(patch)
        try:
            there = open_location(destination, rate_limiter=limit)
            transfer(open_location(origin), there, workers=WORKERS, progress=Silent())
        except KeyboardInterrupt:
            sys.exit(130)


def start(origin: Path, destination_url: str, rate: float | None = None) -> BaseProcess:
    """Begin a transfer, of so many bytes a second at most."""
    return run(carry, str(origin), destination_url, rate)


def code_of(process: BaseProcess, seconds: float = 60) -> int | None:
    """Wait for the end; None where it does not come."""
    process.join(seconds)
    return process.exitcode


def finish(origin: Path, destination_url: str) -> None:
    """Transfer the rest."""
    assert code_of(start(origin, destination_url)) == 0

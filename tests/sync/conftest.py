"""Two buckets, and a sync between them."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from exporters.selection import EVERYTHING
from migrate.case.model import Endpoint
from migrate.runtime.progress import Silent
from migrate.storage.api import MultipartStore
from migrate.storage.rate_limit import RateLimiter
from migrate.storage.registry import open_location
from migrate.sync.open_buckets import open_sides, record_url
from migrate.sync.outcome import SyncOutcome
from migrate.sync.plan import Sides
from migrate.sync.run import SyncOptions, sync
from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop, Shop, make_shop
from tests.tools.raw_s3 import raw_request

__all__ = ["make_shop"]


@dataclass
class Move:
    """A sync from one bucket to another one, that can be run again and again. What is open stays open: clients take
    longer to make than small buckets to copy.
    """

    source: Shop
    destination: Shop
    source_prefix: str = ""
    destination_prefix: str = ""
    record: str | None = None
    progress: Any = field(default_factory=Silent)
    rate_limiter: RateLimiter | None = None
    profiles: tuple[str, str] | None = None
    opened: dict[tuple[str, ...], tuple[Sides, MultipartStore]] = field(default_factory=dict)

    def record_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the record."""
        store = self.location()
        names = [info.key for info in store.list("index/")]
        return [row for name in names for row in pq.read_table(io.BytesIO(store.read(name))).to_pylist()]

    def run(self, workers: int = 2, **options: Any) -> SyncOutcome:
        chosen = SyncOptions(**{"apart": self.record is not None, **options})
        sides, store = self._open()
        return sync(
            msgspec.structs.replace(sides, selection=chosen.selection),
            store,
            chosen,
            workers=workers,
            progress=self.progress,
            rate_limiter=self.rate_limiter,
        )

    def location(self) -> MultipartStore:
        """The store of the record."""
        return self._open()[1]

    def ends(self) -> tuple[str, str]:
        """The URLs of both sides."""
        here, there = self.profiles or (self.source.server.profile, self.destination.server.profile)
        return (
            f"s3://{self.source.name}/{self.source_prefix}?profile={here}",
            f"s3://{self.destination.name}/{self.destination_prefix}?profile={there}",
        )

    def _open(self) -> tuple[Sides, MultipartStore]:
        ends = self.ends()
        which = (*ends, self.record or "")
        if which not in self.opened:
            sides = open_sides("shop", Endpoint(ends[0]), Endpoint(ends[1]), EVERYTHING)
            self.opened[which] = sides, open_location(record_url(sides, self.record))
        return self.opened[which]

    def with_progress(self, progress: Any) -> Move:
        return replace(self, progress=progress)

    def contents(self, shop: Shop) -> dict[str, bytes]:
        """What a bucket holds, without records of syncs."""
        return {key: body(shop, key) for key in shop.keys() if not key.startswith(".moveout-sync/")}  # noqa: SIM118


def body(shop: Shop, key: str) -> bytes:
    return raw_request(shop.server, "GET", f"{shop.name}/{key}").body


@pytest.fixture
def move(minio: S3Server, other_minio: S3Server, make_shop: MakeShop) -> Move:
    """From a MinIO to another one."""
    return Move(make_shop(minio), make_shop(other_minio))

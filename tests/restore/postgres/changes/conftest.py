"""A source whose changes are kept, and a destination that is as the source was."""

import contextlib
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from exporters.postgres.live_digests import live_tables
from migrate.changes.apply import Applying, Mark
from migrate.changes.segments import SegmentFolder
from migrate.restore.postgres.changes.change_writer import open_change_writer
from migrate.restore.postgres.changes.follow_marks import begin_mark
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from scripts.postgresql import PostgresServer
from tests.exporters.postgres.databases import run_sql
from tests.tools.changes import SqlSlot


@dataclass
class Pair:
    """Both databases, the slot, and the segments between."""

    source: str
    destination: str
    slot: SqlSlot
    folder: SegmentFolder
    single_changes: int = 0
    """How many changes the last ``apply`` wrote one by one."""
    log: Mapping[str, Any] = field(default_factory=dict)
    """What the base says of the log."""

    def capture(self, script: str = "") -> None:
        """Run the statements of a script at the source, and keep what they change."""
        with psycopg.connect(self.source, autocommit=True) as connection:
            for statement in re.split(r";\s*(?=[A-Z])", script):
                connection.execute(statement.encode())
        self.slot.write_to(self.folder)

    def apply(self, secrets: Mapping[str, str] | None = None) -> Mark:
        """Apply all that is there."""
        last = self.folder.last()
        with contextlib.closing(
            open_change_writer(self.destination, secrets or {}, "app", self.log)
        ) as writer:
            mark = Applying(self.folder, writer).run(
                CancellationToken(), lambda mark: last is None or mark.place >= last.boundary
            )
        self.single_changes = writer.single_changes
        return mark

    def follow(self, script: str) -> None:
        """Run a script at the source and apply its changes; then both must be equal."""
        self.capture(script)
        self.apply()
        self.assert_equal()

    def assert_equal(self) -> None:
        assert live_tables(self.destination) == live_tables(self.source)


@contextlib.contextmanager
def _pairs(old: PostgresServer, new: PostgresServer, tmp_path_factory) -> Iterator[Callable[[str], Pair]]:
    with contextlib.ExitStack() as stack:

        def make(script: str) -> Pair:
            source, destination = old.database(), new.database()
            location = open_location(str(tmp_path_factory.mktemp("bundle")))
            for url in (source, destination):
                run_sql(url, script)
            slot = SqlSlot(source, f"slot_{secrets.token_hex(6)}")
            stack.callback(slot.close)
            with psycopg.connect(destination) as connection:
                begin_mark(connection, "app", slot.position)
            folder = SegmentFolder(location, "app", slot.position)
            folder.begin()
            return Pair(source, destination, slot, folder)

        yield make


@pytest.fixture
def make_pair(postgres, other_postgres, tmp_path_factory) -> Iterator[Callable[[str], Pair]]:
    """Make both databases by a script; their slot goes with the test."""
    with _pairs(postgres, other_postgres, tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="module")
def make_shared_pair(postgres, other_postgres, tmp_path_factory) -> Iterator[Callable[[str], Pair]]:
    """As ``make_pair``, for tests of a module that share one."""
    with _pairs(postgres, other_postgres, tmp_path_factory) as make:
        yield make

"""A source whose changes are kept, and a destination that is as the source was."""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from exporters.changes import ChangeBase
from exporters.mysql.changes.log import MysqlChangeLog, open_change_log
from exporters.mysql.connection import parse_url
from exporters.mysql.control_tables import ControlTables
from migrate.changes.apply import Applying, Mark
from migrate.changes.capture import Capture, resume_position
from migrate.changes.segments import SegmentFolder
from migrate.restore.mysql.changes.change_writer import open_change_writer
from migrate.restore.mysql.changes.follow_marks import FollowDetails, begin_mark
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from scripts.mariadb import MariadbServer
from tests.exporters.mysql.databases import live_tables, run_sql, session


@dataclass
class Pair:
    """Both databases, the log, and the segments between."""

    source: str
    destination: str
    log: MysqlChangeLog
    base: ChangeBase
    folder: SegmentFolder
    single_changes: int = 0
    """How many rows the last ``apply`` wrote one by one."""

    def capture(self, script: str = "") -> None:
        """Run a script at the source, and keep what it changes."""
        if script:
            run_sql(self.source, script)
        end = self.log.state(self.base.log).end
        with self.log.stream(self.base.log, resume_position(self.folder, self.base.position)) as stream:
            Capture(self.folder).run(stream, CancellationToken(), until=lambda position: position >= end)

    def apply(self, url: str = "") -> Mark:
        """Apply all that is there."""
        last = self.folder.last()
        with contextlib.closing(open_change_writer(url or self.destination, {}, "app")) as writer:
            mark = Applying(self.folder, writer).run(
                CancellationToken(), lambda mark: last is None or mark.place >= last.boundary
            )
        self.single_changes = writer.single_changes
        return mark

    def follow(self, script: str = "") -> None:
        """Run a script at the source and apply its changes; then both must be equal."""
        self.capture(script)
        self.apply()
        self.assert_equal()

    def assert_equal(self) -> None:
        source, destination = (live_tables(parse_url(url)) for url in (self.source, self.destination))
        assert destination == source


def mark_base(url: str, source: str, base: ChangeBase, events: tuple[str, ...] = ()) -> None:
    """Mark a destination as restored from a base."""
    connection = session(url)
    details = FollowDetails(base.log["database"], base.log["stem"], events)
    begin_mark(connection, ControlTables.apart_from(()).follow, source, base.position, details)
    connection.close()


@pytest.fixture(scope="module")
def make_pair(followed_mariadb, other_mariadb, tmp_path_factory) -> Callable[..., Pair]:
    """Make both databases by a script."""
    return pair_maker(followed_mariadb, other_mariadb, tmp_path_factory)


@pytest.fixture(scope="module")
def make_mysql_pair(servers, other_mysql, tmp_path_factory) -> Iterator[Callable[..., Pair]]:
    """The same at servers of MySQL, for the long tests only."""
    followed = servers.mysql("mysql-followed", settings=["binlog-row-metadata=FULL"])
    yield pair_maker(followed, other_mysql, tmp_path_factory)
    followed.child.stop()


def pair_maker(old: MariadbServer, new: MariadbServer, tmp_path_factory) -> Callable[..., Pair]:
    """Return what makes a database at each of both servers by a script."""

    def make(script: str, events: tuple[str, ...] = ()) -> Pair:
        source, destination = old.database(), new.database()
        location = open_location(str(tmp_path_factory.mktemp("bundle")))
        for url in (source, destination):
            run_sql(url, script)
        log = open_change_log(source, {}, f"case-{secrets.token_hex(6)}")
        with log.open_base() as base:
            pass
        mark_base(destination, "app", base, events)
        folder = SegmentFolder(location, "app", base.position)
        folder.begin()
        return Pair(source, destination, log, base, folder)

    return make

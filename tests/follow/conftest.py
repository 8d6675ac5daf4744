"""Sources with a change log, and destinations that are as their base was."""

import contextlib
import secrets
from collections.abc import Callable, Iterator

import psycopg
import pytest

from exporters.postgres.changes.log import open_change_log
from migrate.case.model import Endpoint
from migrate.follow.followed import FollowedSource
from migrate.restore.postgres.changes.follow_marks import begin_mark
from tests.exporters.postgres.databases import run_sql


@pytest.fixture
def make_followed(postgres, other_postgres) -> Iterator[Callable[..., FollowedSource]]:
    """Make a source and a destination by a script, and the base between them."""
    with contextlib.ExitStack() as stack:

        def make(script: str, name: str = "app", *, is_restored: bool = True) -> FollowedSource:
            source, destination = postgres.database(), other_postgres.database()
            for url in (source, destination):
                run_sql(url, script)
            case = f"case-{secrets.token_hex(4)}"
            log = open_change_log(source, {}, case)
            with log.open_base() as base:
                pass
            stack.callback(log.drop, base.log)
            followed = FollowedSource(
                name, Endpoint(source), Endpoint(destination), base.position, base.log, case
            )
            if is_restored:
                restored(followed)
            return followed

        yield make


def restored(followed: FollowedSource) -> None:
    """Mark the destination as restored from the base."""
    with psycopg.connect(followed.destination.url) as connection:
        begin_mark(connection, followed.name, followed.base)

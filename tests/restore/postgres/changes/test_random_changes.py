"""After any workload the destination has what the source has."""

import contextlib
import os
import random

import pytest
from hypothesis import HealthCheck, given, seed, settings

from exporters.postgres.live_digests import live_tables
from migrate.changes.apply import Applying
from migrate.restore.postgres.changes.change_writer import open_change_writer
from migrate.runtime.cancellation import CancellationToken
from tests.restore.postgres.changes.workloads import SCHEMA, WORKLOADS, run


@pytest.fixture(scope="module")
def follow(make_shared_pair):
    """Run a workload at the source, and compare what comes of it. All workloads share two databases."""
    pair = make_shared_pair(SCHEMA)
    with contextlib.closing(open_change_writer(pair.destination, {}, "app")) as writer:

        def follow(workload):
            run(pair.source, workload)
            pair.slot.write_to(pair.folder)
            last = pair.folder.last()
            if last is not None:
                applying = Applying(pair.folder, writer)
                applying.run(CancellationToken(), lambda mark: mark.place >= last.boundary)
            assert live_tables(pair.destination) == live_tables(pair.source)

        yield follow


def check(follow, examples, chosen=None):
    @seed(chosen)
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=chosen is None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(WORKLOADS)
    def every(workload):
        follow(workload)

    every()


def test_a_few_workloads(follow):
    check(follow, 6)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_many_workloads(follow):
    chosen = int(os.environ.get("MOVEOUT_SEED") or random.SystemRandom().randrange(10**9))
    print(f"MOVEOUT_SEED={chosen}")  # noqa: T201  which repeats it
    check(follow, int(os.environ.get("MOVEOUT_WORKLOADS", "200")), chosen)

"""After any workload the destination has what the source has."""

import os
import random

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.restore.mysql.changes.workloads import SCHEMA, WORKLOADS, run


def check(make_pair, examples, chosen=None):
    """Run workloads at the source, and compare what comes of each. All share two databases."""
    pair = make_pair(SCHEMA)

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
        run(pair.source, workload)
        pair.follow()
        assert pair.single_changes == 0

    every()


def test_a_few_workloads(make_pair):
    check(make_pair, 3)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("maker", ["make_pair", "make_mysql_pair"])
def test_many_workloads(maker, request):
    chosen = int(os.environ.get("MOVEOUT_SEED") or random.SystemRandom().randrange(10**9))
    print(f"MOVEOUT_SEED={chosen}")  # noqa: T201  which repeats it
    check(request.getfixturevalue(maker), int(os.environ.get("MOVEOUT_WORKLOADS", "200")), chosen)

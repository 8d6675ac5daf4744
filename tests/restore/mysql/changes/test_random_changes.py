"""After any workload the destination has what the source has."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.restore.mysql.changes.workloads import SCHEMA, WORKLOADS, run


def check(make_pair, examples):
    """Run workloads at the source, and compare what comes of each. All share two databases."""
    pair = make_pair(SCHEMA)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
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
def test_many_workloads(make_pair):
    check(make_pair, 200)

"""An eviction at a drawn moment of every twentieth of the requests: sealed and honest, and later continued by another
credential. MOVEOUT_SEED repeats the moments.
"""

import os
import random
import sys

import pytest

from exporters.objects import unit_plan
from tests.exporters.objects.test_eviction import evict, evicted, second_account  # noqa: F401 - fixtures

pytestmark = pytest.mark.torture
LATEST = 0.95
"""An undisturbed run may make a few requests less than the one that was counted; an eviction comes before its end."""
EVICTIONS = int(os.environ.get("MOVEOUT_EVICTIONS", "19"))


@pytest.mark.parametrize("number", range(1, EVICTIONS + 1))
def test_an_eviction_at_any_moment(number, evicted, second_account, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(unit_plan, "PACK_OBJECTS", 7)
    seed = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
    share = (number - random.Random(f"{seed}/{number}").random()) / EVICTIONS
    sys.stderr.write(f"MOVEOUT_SEED={seed}: after {share:.4f} of the requests\n")
    evict(evicted, second_account, share * LATEST, tmp_path / "bundle")

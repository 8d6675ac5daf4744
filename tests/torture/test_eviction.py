"""An eviction after every twentieth of the requests: sealed and honest, and later continued by another credential."""

import os

import pytest

from exporters.objects import unit_plan
from tests.exporters.objects.test_eviction import evict, evicted, second_account  # noqa: F401 - fixtures

pytestmark = pytest.mark.torture
EVICTIONS = int(os.environ.get("MOVEOUT_EVICTIONS", "19"))


@pytest.mark.parametrize("number", range(1, EVICTIONS + 1))
def test_an_eviction_at_any_moment(number, evicted, second_account, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(unit_plan, "PACK_OBJECTS", 7)
    evict(evicted, second_account, number / (EVICTIONS + 1), tmp_path / "bundle")

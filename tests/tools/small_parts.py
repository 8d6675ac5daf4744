"""Objects that are sent in parts, and smaller than such objects are otherwise."""

import pytest

from migrate.restore.objects import destination_terms
from migrate.storage.api import MIN_PART_BYTES
from migrate.sync import copy
from tests.transfer.carriers import cut_smallest

PART = MIN_PART_BYTES
PUT_BYTES = 2 * PART
LARGE = 2 * PART + 2**20
"""The size of an object that is sent in parts also where the source has it whole: three of them."""


@pytest.fixture(scope="module", autouse=True)
def small_parts():
    """Send objects in S3's smallest parts, from 10 MiB on, where it is 32: their way is the same, with a third of the
    bytes.
    """
    with pytest.MonkeyPatch.context() as patch:
        cut_smallest(patch)
        for module in (copy, destination_terms):
            patch.setattr(module, "PUT_BYTES", PUT_BYTES)
        yield

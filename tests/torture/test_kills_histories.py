"""SIGKILL at random moments to a restore of whole histories, three times, then the same command: every version once."""

import os

import pyarrow.parquet as pq
import pytest

from tests.exporters.objects.histories import make_history, read_history
from tests.exporters.objects.test_history import make_old_shop
from tests.torture.command import moveout, must

pytestmark = pytest.mark.torture

ROUNDS = range(-(-int(os.environ.get("MOVEOUT_KILLS", "50")) // 3))
"""Three kills each."""
LARGE = 48 * 2**20


@pytest.fixture(scope="module")
def old(minio, other_minio, tmp_path_factory):
    """A bucket with a past, its bundle, and how long a restore of it takes undisturbed."""
    shop = make_old_shop(minio)
    count = make_history(shop, keys=300, versions=8, locks=False)
    for number in range(3):
        shop.put("large", bytes([number]) * (LARGE + number))
        count += 1
    location = tmp_path_factory.mktemp("history") / "bundle"
    must("export", f"shop={shop.url}", "--to", location)
    there = make_old_shop(other_minio, lock=False)
    account = tmp_path_factory.mktemp("undisturbed")
    seconds = must("restore", location, f"shop={there.url}", "--report-to", account).seconds
    return contents(minio, shop.name), location, count, seconds


def contents(server, name):
    """What each key has been, without ETags: what is sent in parts gets another one."""
    return {key: [row[:3] + row[4:] for row in rows] for key, rows in read_history(server, name).items()}


@pytest.mark.parametrize("number", ROUNDS)
def test_a_restore_of_histories_that_was_killed_goes_on(number, old, other_minio, moments, tmp_path):
    history, location, count, seconds = old
    there = make_old_shop(other_minio, lock=False)
    words = ("restore", location, f"shop={there.url}", "--report-to", tmp_path)
    for moment in moments(f"history {number}", seconds, 3):
        killed = moveout(*words, kill_after=moment)
        assert killed.code in {0, -9}, killed.said
    must(*words)
    assert contents(other_minio, there.name) == history
    moved = pq.read_table(tmp_path / "shop/versions.parquet").to_pylist()
    assert len({row["new_version_id"] for row in moved}) == len(moved) == count
    must("verify", location, "--against", f"shop={there.url}")

"""What was captured lies in the history of the server that is read, or not."""

import pytest

from exporters.postgres.changes.timelines import Timeline, parse_history

HISTORY = "1\t0/5000000\tno recovery target specified\n\n# a note\n2\t1/0\tbefore 2026-11-29\n"


def test_a_history_file_is_read():
    assert parse_history(HISTORY) == [0x5000000, 1 << 32]


@pytest.mark.parametrize(
    ("acknowledged", "after", "lost_from"),
    [
        (100, 200, None),
        (100, 500, None),
        (100, 501, 500),
        (500, 501, 500),
        (501, 900, None),
        (600, 1200, 1000),
        (100, 1200, 500),
    ],
)
def test_a_switch_after_what_is_acknowledged_and_before_what_is_captured_loses(
    acknowledged, after, lost_from
):
    assert Timeline(3, [500, 1000]).lost_from(acknowledged, after) == lost_from

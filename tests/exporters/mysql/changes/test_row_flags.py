"""The flags of rows say whether the log has what foreign keys did; then none acts at the destination."""

import pytest

from exporters.mysql.changes.row_events import flags_of, with_logged_keys

_SERVER_DELETES = "2f570b6b20010000002f0000005a12000000009200000000001000020003ff000b00000001006101000000"
_SERVER_DELETES_CHILD = "31570b6b20010000002c000000821400000000a300000000001200020002ffff00020000000c000000"
_INNODB_DELETES = "40570b6b20010000002f000000c10f000000009100000000000000020003ff000b00000001006101000000"
_INNODB_DELETES_WITHOUT_CHECKS = (
    "46570b6b20010000002f000000291400000000cd00000000000300020003ff000e00000001006404000000"
)


@pytest.mark.parametrize(
    ("event", "flags"),
    [
        (_SERVER_DELETES, 0x12),
        (_SERVER_DELETES_CHILD, 0x12),
        (_INNODB_DELETES, 0),
        (_INNODB_DELETES_WITHOUT_CHECKS, 3),
    ],
)
def test_no_key_acts_on_rows_where_the_server_logged_what_keys_did(event, flags):
    """Events of MySQL 9.7."""
    before = bytes.fromhex(event)
    after = with_logged_keys(before)
    assert flags_of(after) == flags
    assert len(after) == len(before)
    assert [at for at in range(len(before)) if after[at] != before[at]] in ([], [25])

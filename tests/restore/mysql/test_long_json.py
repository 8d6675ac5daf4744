"""Decimals in documents that are read in pieces: where they stand, however the pieces are cut."""

import pytest

from migrate.restore.mysql.rows.json_decimals import decimals_in, with_paths

DOCUMENT = (
    '{"a": [1.50, {"b\\"\\u00e9": 2.5, "c,[": -0.00}, "x 1.50 \\\\", []], "": {"é": [[18446744073709551616]]},'
    ' "d": null, "e": 1.0, "f": [true, 9.90]}'
).encode()
FOUND = [
    ('$."a"[0]', "1.50"),
    ('$."a"[1]."c,["', "-0.00"),
    ('$.""."é"[0][0]', "18446744073709551616"),
    ('$."f"[1]', "9.90"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 1000])
def test_they_are_found_by_their_paths(size):
    pieces = (DOCUMENT[at : at + size] for at in range(0, len(DOCUMENT), size))
    assert list(decimals_in(pieces)) == FOUND


def test_a_document_without_any_is_its_text():
    assert list(with_paths([b"'[1.5]'"], [b"[1.5]"])) == [b"'[1.5]'"]
    assert (
        b"".join(with_paths([b"'[1.50]'"], [b"[1.5", b"0]"]))
        == b"JSON_SET('[1.50]','$[0]',CAST(1.50 AS JSON))"
    )

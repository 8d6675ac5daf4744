"""Numbers in JSON that no double prints: MySQL would round them, so they are written as SQL decimals; also those
of documents that are read in pieces, however these are cut.
"""

from __future__ import annotations

import pyarrow as pa
import pytest

from migrate.restore.mysql.rows.json_decimals import (
    decimals_in,
    is_decimal,
    printed_double,
    with_decimals,
    with_paths,
)

BUILT = (
    b"JSON_OBJECT('it''s',JSON_ARRAY(CAST(1.50 AS JSON),CAST('\"x\"' AS JSON),CAST('null' AS JSON)),"
    b"'b',CAST('{\"c\":1.5}' AS JSON))"
)


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.5, "1.5"),
        (100.0, "100.0"),
        (1e-15, "0.000000000000001"),
        (1.5e-16, "1.5e-16"),
        (1e14, "100000000000000.0"),
        (1e15, "1e15"),
        (1234567890123456.0, "1.234567890123456e15"),
        (4385652613774506.5, "4385652613774506.5"),
        (1.7976931348623157e308, "1.7976931348623157e308"),
        (5e-324, "5e-324"),
    ],
)
def test_doubles_are_written_as_mysql_prints_them(number, printed):
    assert printed_double(number) == printed
    assert not is_decimal(printed)


@pytest.mark.parametrize("number", ["1.50", "0.00", "-9.90", "18446744073709551616", "0.1234567890123456789"])
def test_what_no_double_prints_is_a_decimal(number):
    assert is_decimal(number)


def test_documents_with_decimals_are_put_together_by_functions():
    texts = [
        b'{"it\'s": [1.50, "x", null], "b": {"c": 1.5}}',
        b'{"a": 1.5}',
        None,
        b"1.50",
        b'"1.50"',
        b"{1.50",
    ]
    decimals = with_decimals(
        pa.array(texts, pa.binary()), pa.array([b"L"] * len(texts), pa.binary())
    ).to_pylist()
    assert decimals == [
        BUILT,
        b"L",
        b"L",
        b"CAST(1.50 AS JSON)",
        b"L",
        b"L",
    ]


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

"""Numbers in JSON that no double prints: MySQL would round them, so they are written as SQL decimals."""

import pyarrow as pa
import pytest

from migrate.restore.mysql.rows.json_decimals import is_decimal, printed_double, with_decimals

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

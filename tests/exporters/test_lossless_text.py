"""Text that loses no byte: which one has bytes that are no UTF-8."""

import pytest

from exporters.lossless_text import bytes_of, is_utf_8, latin_1_text, text_of


@pytest.mark.parametrize(
    ("value", "is_whole"),
    [
        (b"plain", True),
        ("ä € \ue000 \ufb01 😀".encode(), True),
        (b"\x80", False),
        (b"\xff", False),
        ("ä".encode("latin-1"), False),
    ],
)
def test_text_whose_bytes_are_no_utf_8_is_told_from_any_other(value, is_whole):
    text = text_of(value)
    assert (bytes_of(text), is_utf_8(text)) == (value, is_whole)
    assert latin_1_text(text) == (text if is_whole else value.decode("latin-1"))

"""Pages read by a pattern say the same as pages read by a parser of XML, or are left to it."""

from __future__ import annotations

from urllib.parse import quote_plus
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.storage.s3.listing import pages

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
HOSTILE = ("</Key>", "<Contents>", "&amp;", "&#65;", "a+b %2F", "<![CDATA[x]]>", "é", "😀", "]]>", '"', "'")


def page(keys: list[str], *, encoded: bool, more: str = "") -> bytes:
    rows = "".join(
        f"<Contents><Key>{quote_plus(key) if encoded else escape(key)}</Key>"
        "<LastModified>2026-01-02T03:04:05.678Z</LastModified><ETag>&quot;abc&#34;</ETag>"
        f"<Size>{number}</Size><Owner><ID>x</ID><DisplayName></DisplayName></Owner>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for number, key in enumerate(keys)
    )
    kind = "<EncodingType>url</EncodingType>" if encoded else ""
    return f'<?xml version="1.0"?><ListBucketResult xmlns="x">{kind}{rows}{more}</ListBucketResult>'.encode()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(TEXT, st.sampled_from(HOSTILE)), min_size=1, max_size=5), st.booleans())
def test_both_ways_read_the_same(keys: list[str], encoded: bool) -> None:
    body = page(keys, encoded=encoded)
    quick = pages._by_pattern(body)
    assert quick is not None
    assert quick == pages._objects(ET.fromstring(body))
    assert list(quick.keys) == keys
    assert pages.last_key(body) == keys[-1]


@pytest.mark.parametrize(
    "more",
    [
        "<Contents><Key>b&#x41;</Key><LastModified>2026-01-02T03:04:05Z</LastModified><Size>1</Size></Contents>",
        "<Contents><Key><![CDATA[b]]></Key><LastModified>2026-01-02T03:04:05Z</LastModified><Size>1</Size></Contents>",
        "<Contents><Size>1</Size><Key>b</Key><LastModified>2026-01-02T03:04:05Z</LastModified></Contents>",
        "<!-- <Contents> -->",
    ],
)
def test_what_is_unusual_is_left_to_the_parser(more: str) -> None:
    body = page(["a"], encoded=False, more=more)
    assert pages._by_pattern(body) is None
    assert pages.parse_objects(body).keys[:1] == ["a"]


def test_control_characters_are_no_business_of_the_pattern() -> None:
    assert pages._by_pattern(page(["a\rb"], encoded=False)) is None
    assert pages._by_pattern(page(["a\x01b"], encoded=False)) is None


@pytest.mark.parametrize("char", ["\x01", "\x1f", "\r", "\ufffe", "\uffff", "\udcff"])
def test_what_xml_cannot_carry_is_kept(char: str) -> None:
    """Some servers send it as it is: control characters, characters that are none, bytes that are not UTF-8."""
    key = f"a{char}b"
    body = f"<?xml version='1.0'?>\r\n<ListBucketResult>\r\n<Key>{key}</Key></ListBucketResult>".encode(
        "utf-8", "surrogateescape"
    )
    assert pages.parsed(body).findtext("Key") == key
    for ambiguous in (body.replace(b"</Key>", "\U000f0001</Key>".encode()), body.replace(b"</Key>", b"")):
        if char == "\r" and b"</Key>" in ambiguous:
            continue  # that is XML
        with pytest.raises(ET.ParseError):
            pages.parsed(ambiguous)

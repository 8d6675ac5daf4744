"""One byte sequence for one value, and errors that name the file."""

from __future__ import annotations

import pytest

from migrate.bundle.canonical_json import check_version, decode, decode_entries, encode, encode_pretty
from migrate.errors import DamageError, UsageError


def decode_objects(data, key):
    return decode_entries(data, key, dict)


VALUE = {"b": [1, "é\udcff"], "a": None}


def test_one_value_has_one_byte_sequence_in_ascii():
    assert encode(VALUE) == b'{"a":null,"b":[1,"\\u00e9\\udcff"]}'
    assert encode_pretty(VALUE) == b'{\n  "a": null,\n  "b": [\n    1,\n    "\\u00e9\\udcff"\n  ]\n}\n'
    assert decode(encode(VALUE), "a.json") == decode(encode_pretty(VALUE), "a.json") == VALUE
    assert decode_objects(b'[{"a": 1}, {}]', "a.json") == [{"a": 1}, {}]


@pytest.mark.parametrize("write", [encode, encode_pretty])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused(write, number):
    with pytest.raises(ValueError, match="JSON compliant"):
        write({"a": number})


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[" * 100_000])
def test_what_is_not_json_is_damage_of_that_file(data):
    for read in (decode, decode_objects):
        with pytest.raises(DamageError, match=r"a\.json"):
            read(data, "a.json")


@pytest.mark.parametrize(
    ("read", "data"), [(decode, b"[]"), (decode_objects, b"{}"), (decode_objects, b"[1]")]
)
def test_json_of_another_kind_is_damage_of_that_file(read, data):
    with pytest.raises(DamageError, match=r"a\.json"):
        read(data, "a.json")


def test_texts_hold_bytes_only_where_they_may():
    data = b'[{"a": "\\udcff"}]'
    assert decode_entries(data, "a.json", dict, holds_bytes=True) == [{"a": "\udcff"}]
    with pytest.raises(DamageError, match="surrogates not allowed"):
        decode_entries(data, "a.json", dict)


@pytest.mark.parametrize("version", [None, True, "1", 1.0])
def test_a_version_is_a_whole_number(version):
    with pytest.raises(DamageError, match="a version number"):
        check_version({"version": version}, "a.json", 1)


@pytest.mark.parametrize(
    ("version", "next_step"),
    [
        (4, "use the moveout that wrote it, or a newer one"),
        (2, "use the moveout that wrote it; to export with this one, name a new location"),
    ],
)
def test_another_version_is_refused_with_what_reads_it(version, next_step):
    with pytest.raises(UsageError, match="another version of the format") as caught:
        decode(encode({"version": version}), "a.json", version=3)
    assert caught.value.next_step == next_step
    assert decode(encode({"version": version}), "a.json") == {"version": version}
    assert decode(encode({"version": 3}), "a.json", version=3) == {"version": 3}

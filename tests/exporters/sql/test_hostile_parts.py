"""A part that is not as the format says is named with what is wrong with it, in words that are not Python's."""

from __future__ import annotations

import io
import json
from typing import TypedDict

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters.errors import DamageError, in_words
from exporters.sql.columns import EXACT_OF, KIND
from exporters.sql.large_values.long_values import SHORT_BYTES
from exporters.sql.large_values.parquet_footer import COLUMNS, GROUPS, LENGTH, MAGIC, Value, dump, footer_of
from exporters.sql.parquet_read import READ_ERRORS, open_part, rows_of

_BINARY, _LIST, _STRUCT = 8, 9, 12


@pytest.mark.parametrize(
    ("name", "metadata", "problem"),
    [
        ("a", None, "the column 'a' lacks moveout.kind"),
        ("a", {"moveout.type": "text"}, "the column 'a' lacks moveout.kind"),
        ("a$exact", {EXACT_OF: b"a"}, r"the column 'a\$exact' is the exact text of none"),
    ],
)
def test_a_column_that_nothing_is_said_of_is_named(
    name: str, metadata: dict[str | bytes, str | bytes] | None, problem: str
) -> None:
    file = io.BytesIO()
    pq.write_table(
        pa.table({name: ["x"]}).cast(pa.schema([pa.field(name, pa.string(), metadata=metadata)])), file
    )
    with pytest.raises(READ_ERRORS, match=problem):
        open_part(file)


def test_a_column_with_its_kind_is_read() -> None:
    file = io.BytesIO()
    fields = [
        pa.field("a", pa.string(), metadata={KIND: "text"}),
        pa.field("b", pa.string(), metadata={EXACT_OF: "a"}),
    ]
    pq.write_table(pa.table({"a": ["x"], "b": [None]}, schema=pa.schema(fields)), file)
    assert open_part(file).metadata.num_rows == 1


def test_a_long_row_whose_column_is_described_encrypted_does_not_end_the_process() -> None:
    """The fields of ``ColumnChunk`` are those of parquet.thrift: ``crypto_metadata`` is 8."""
    file = io.BytesIO()
    schema = pa.schema([pa.field("a", pa.string(), metadata={KIND: "text"})])
    pq.write_table(pa.table({"a": ["x" * (SHORT_BYTES + 1)]}, schema=schema), file, use_dictionary=False)
    footer = footer_of(pa.py_buffer(file.getvalue()))
    (group,) = footer[GROUPS].data
    a_key = Value(_STRUCT, {2: Value(_STRUCT, {1: Value(_LIST, [b"a"], _BINARY)})})
    group[COLUMNS].data[0][8] = a_key
    end = dump(footer)
    with pytest.raises(READ_ERRORS, match="it is encrypted"):
        list(rows_of(open_part(io.BytesIO(b"PAR1" + end + LENGTH.pack(len(end)) + MAGIC))))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('{"a": []}', "there is no 'b'"),
        ("[]", "a value is of another kind than the format says"),
        ("null", "a value is of another kind than the format says"),
        ('{"b": "x"}', "'x' is no number"),
        ("[" * 100_000, "it is nested too deeply"),
        ("9" * 5000, "a number has more than 4300 digits"),
        ("", "line 1, column 1 is no JSON"),
        ('{"a": 1,\n b}', "line 2, column 2 is no JSON"),
    ],
)
def test_what_is_wrong_with_json_of_others_is_not_put_in_words_of_python(value: str, words: str) -> None:
    with pytest.raises(READ_ERRORS) as raised:
        int(json.loads(value)["b"])
    assert in_words(raised.value) == words


class _Record(TypedDict):
    number: int


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "there is no number"),
        ({"number": "x"}, "a value is str, not int, at number"),
        ([], "a value is array, not object"),
    ],
)
def test_what_is_wrong_with_a_record_is_put_in_words(value: object, words: str) -> None:
    with pytest.raises(READ_ERRORS) as raised:
        msgspec.convert(value, _Record)
    assert in_words(raised.value) == words


def test_an_error_about_damage_repeats_the_beginning_of_a_value() -> None:
    error = DamageError("data/x", expected="a number", found="9" * 100_000)
    assert len(str(error)) < 600
    assert error.found.endswith("9…")


def test_bytes_that_are_no_text_are_named_by_their_place() -> None:
    with pytest.raises(UnicodeDecodeError) as raised:
        b"a\xff".decode()
    assert in_words(raised.value) == "byte 1 is not UTF-8"
    assert in_words(ValueError("one line\nand another")) == "one line and another"
    assert in_words(ValueError()) == "ValueError"
    assert in_words(IndexError("list index out of range")) == "it has fewer values than the format says"

r"""Words within the text of a value: elements of arrays, bounds of ranges, fields of composites, entries of maps.

Whole columns at a time. Text that PostgreSQL sends is UTF-8, in which the bytes F8 to FF never occur. So they can stand
for what must not be confused with the text's own characters: an escaped quote, say, while the bare ones are looked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pyarrow as pa
from msgspec import Struct
from pyarrow import csv

from exporters import arrow_functions as pc
from exporters.sql.value_codec import joined

SPACE = b" \t\n\v\f\r"

_ROW, ITEM, _MARK, _BACKSLASH, _QUOTE = b"\xff", b"\xfe", b"\xfd", b"\xfc", b"\xfb"
"""The end of a row, what separates words, the quotes around a word, and both escaped characters."""

_BOM = b"\xef\xbb\xbf"
"""Arrow drops one at the beginning of what it parses."""

_FEW = 2
"""To search for each of so few bytes is faster than a pattern."""


class Quotes(Struct, frozen=True):
    """When a word is quoted: where it is empty, has one of the bytes ``special`` or is ``word`` in any case. ``quote``
    and ``backslash``: how these are written inside of quotes.
    """

    special: bytes
    quote: bytes
    backslash: bytes = b"\\\\"
    word: bytes = b""

    def around(self, texts: pa.Array) -> pa.Array:
        """Return binary texts with quotes where they belong; NULL for NULL."""
        raw = joined(texts)
        needs = pc.equal(texts, b"")
        present = bytes(byte for byte in self.special if byte in raw)
        if len(present) > _FEW:
            needs = pc.or_(needs, pc.match_substring_regex(texts, pattern=_one_of(present)))
        else:
            for byte in present:
                needs = pc.or_(needs, pc.match_substring(texts, pattern=bytes([byte])))
        if self.word and self.word in raw.upper():
            word = re.escape(self.word.decode())
            needs = pc.or_(needs, pc.match_substring_regex(texts, pattern=f"(?i)^{word}$"))
        if not needs.true_count:
            return texts
        needs = pc.fill_null(needs, fill_value=False)
        return pc.replace_with_mask(texts, needs, self.around_all(pc.filter(texts, needs)))

    def around_all(self, texts: pa.Array) -> pa.Array:
        """Return binary texts all with quotes; NULL for NULL."""
        raw = joined(texts)
        if self.backslash != b"\\" and b"\\" in raw:
            texts = pc.replace_substring(texts, pattern=b"\\", replacement=self.backslash)
        if b'"' in raw:
            texts = pc.replace_substring(texts, pattern=b'"', replacement=self.quote)
        return pc.binary_join_element_wise(b'"', texts, b'"', b"")


def _one_of(characters: bytes) -> str:
    return "[" + "".join(f"\\x{byte:02x}" for byte in characters) + "]"


class Words(Struct, frozen=True):
    """The words of every row, one after the other, as binary; ``lengths`` how many each row has. ``quoted``: whether
    some have quotes around them, as ``bare`` removes them; ``escaped``: whether there were backslashes.
    """

    lengths: pa.Array
    words: pa.Array
    quoted: bool
    escaped: bool

    def bare(self, null: bytes | None = None) -> pa.Array:
        """Return the words as text without quotes and escapes; NULL for those that are ``null`` without quotes."""
        words = self.words
        if null is not None:
            words = pc.if_else(pc.equal(words, null), pa.scalar(None, words.type), words)
        if self.quoted:
            words = pc.replace_substring(words, pattern=_MARK, replacement=b"")
        if self.escaped:
            words = pc.replace_substring(words, pattern=_BACKSLASH, replacement=b"\\")
            words = pc.replace_substring(words, pattern=_QUOTE, replacement=b'"')
        return pc.cast(words, pa.string())


def cut(
    text: pa.Array,
    separated: Callable[[bytes], bytes],
    *,
    opening: bytes = b"",
    closing: bytes = b"",
    whole: bool = False,
) -> Words:
    """Cut every row into its words. ``separated`` puts ``ITEM`` between words in what stands outside of quotes. Every
    row begins with ``opening`` and ends with ``closing``; NULL is not allowed. ``whole``: quotes are within words, and
    stay as they are.
    """
    if not len(text):
        return Words(pa.array([], pa.int32()), pa.array([], pa.binary()), quoted=False, escaped=False)
    data = joined(pc.binary_join_element_wise(pc.cast(text, pa.binary()), b"", _ROW))
    data = data[len(opening) : len(data) - len(closing + _ROW)].replace(closing + _ROW + opening, _ROW)
    escaped = not whole and b"\\" in data
    if escaped:
        data = data.replace(b"\\\\", _BACKSLASH).replace(b'\\"', _QUOTE)
    quoted = b'"' in data
    data = _outside_quotes(data, separated, mark=b'"' if whole else _MARK) if quoted else separated(data)
    rows = pc.list_flatten(pc.split_pattern(pa.array([data], pa.binary()), pattern=_ROW))
    lists = pc.split_pattern(rows, pattern=ITEM)
    lengths = pc.list_value_length(lists)
    empty = pc.equal(rows, b"")  # a row without words; an empty word has quotes
    if empty.true_count:
        lengths = pc.if_else(empty, pa.scalar(0, lengths.type), lengths)
        lists = pc.filter(lists, pc.invert(empty))
    return Words(lengths, pc.list_flatten(lists), quoted and not whole, escaped)


def _outside_quotes(data: bytes, change: Callable[[bytes], bytes], *, mark: bytes) -> bytes:
    """Change what stands outside of quotes, where each quote inside is escaped or doubled; ``mark`` replaces them."""
    pieces = data.split(b'"')
    pieces[0::2] = change(b'"'.join(pieces[0::2])).split(b'"')
    return mark.join(pieces)


def fields_of(text: pa.Array, count: int) -> list[pa.Array]:
    """Return the fields of rows in brackets, as text without quotes: what stands between the brackets is CSV with
    doubled backslashes. Nothing is NULL, as all fields of NULL are. Raises ``pa.ArrowInvalid`` where a row has more or
    fewer.
    """
    if not len(text):
        return [pa.array([], pa.string())] * count
    names = [str(number) for number in range(count)]
    inner = pc.fill_null(pc.utf8_slice_codeunits(text, 1, -1), "," * (count - 1))
    lines = _BOM + joined(pc.binary_join_element_wise(pc.cast(inner, pa.binary()), b"", b"\n"))
    table = csv.read_csv(
        pa.BufferReader(lines),
        read_options=csv.ReadOptions(column_names=names, block_size=len(lines) + 1, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=False,
        ),
    )
    fields = [column.combine_chunks() for column in table.columns]
    if b"\\" not in lines:
        return fields
    return [pc.replace_substring(field, pattern="\\\\", replacement="\\") for field in fields]


def lists_of(lengths: pa.Array, values: pa.Array) -> pa.Array:
    """Return lists of these lengths, NULL where the length is."""
    offsets = offsets_of(lengths)
    return pa.Array.from_buffers(
        pa.list_(values.type), len(lengths), [validity_of(lengths), offsets.buffers()[1]], children=[values]
    )


def structs_of(stored: pa.StructType, fields: Sequence[pa.Array], like: pa.Array) -> pa.Array:
    """Return structs of these fields, NULL where ``like`` is. Arrow's own way imports ``pyarrow.compute``."""
    return pa.Array.from_buffers(stored, len(like), [validity_of(like)], children=list(fields))


def validity_of(values: pa.Array) -> pa.Buffer | None:
    """Return the bits that say where an array has values, from its first value on; None where none is NULL."""
    if not values.null_count:
        return None
    return pa.concat_arrays([pc.is_valid(values), pa.array([], pa.bool_())]).buffers()[1]


def offsets_of(lengths: pa.Array) -> pa.Array:
    """Return where lists of these lengths begin, and the end of the last."""
    ends = pc.cumulative_sum(pc.cast(pc.fill_null(lengths, 0), pa.int32()))
    return pa.concat_arrays([pa.array([0], pa.int32()), ends])

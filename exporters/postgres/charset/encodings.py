r"""Databases whose encoding is not UTF-8, and the values in them that do not come through UTF-8 as they are.

Text leaves in UTF-8. Some encodings have bytes for which the server has no character (0x81 in WIN1252), or two codes
for one character (nine times in EUC_JP). A value that has such a character is kept as ``OWN`` and the bytes of the
database. So the text of a row is the same whether its chunk is read in UTF-8 or in bytes. What a code becomes is asked
of a server: the tables are PostgreSQL's (src/backend/utils/mb/Unicode), and no others are quite like them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from exporters.postgres.rows.csv_rows import split_lines
from exporters.sql.columns import OWN

AS_STORED = frozenset({"UTF8", "SQL_ASCII"})
"""Encodings of databases whose text leaves as the bytes that are stored."""
_WHOLE = frozenset(
    {f"LATIN{number}" for number in (1, 2, 4, 5, 6, 7, 8, 9, 10)}
    | {"ISO_8859_5", "KOI8R", "KOI8U", "WIN866", "WIN1256"}
)
"""Encodings in which every byte is a character, and no two are the same."""
_TWICE = frozenset({"EUC_JP", "EUC_JIS_2004", "EUC_TW"})
"""Encodings in which two texts may be the same in UTF-8."""

_BYTE = rb"[\x80-\xff]"
_TWO = rb"[\xa1-\xfe]{2}"
_CHARACTERS: Mapping[str, bytes] = {
    "EUC_CN": rb"%b|%b" % (_TWO, _BYTE),
    "EUC_KR": rb"%b|%b" % (_TWO, _BYTE),
    "EUC_JP": rb"%b|\x8e[\xa1-\xfe]|\x8f%b|%b" % (_TWO, _TWO, _BYTE),
    "EUC_JIS_2004": rb"%b|\x8e[\xa1-\xfe]|\x8f%b|%b" % (_TWO, _TWO, _BYTE),
    "EUC_TW": rb"%b|\x8e[\xa1-\xfe]%b|%b" % (_TWO, _TWO, _BYTE),
}
"""What is one character beyond ASCII (src/common/wchar.c); a byte that begins none stands alone. In all others each
byte is one.
"""
_LONGEST = 4
_ODD = b"\xfe"
"""Stands for what does not come through UTF-8: none has this byte."""
_JOINED = frozenset("\u0300\u0301\u02e5\u02e9\u309a")
"""EUC_JIS_2004 has single codes for some letters with one of these behind; the letter and this, a code each, become the
same (utf8_to_euc_jis_2004_combined.map).
"""
_VALUE = re.compile(rb'"[^"]*(?:""[^"]*)*"|[^,"]+')
_HIGH = bytes(range(0x80, 0x100))
_AT_ONCE = 128

Ask = Callable[[Sequence[bytes]], Sequence[tuple[bytes, bool]] | bytes]
"""Returns of each code its text in UTF-8, and whether that becomes the same code again. Where one of them becomes
nothing it returns that one; nothing of it where it does not know which.
"""


def may_change(encoding: str) -> bool:
    """Tell whether text of this encoding may not come through UTF-8 as it is."""
    return encoding not in AS_STORED | _WHOLE


def is_ambiguous(encoding: str) -> bool:
    """Tell whether two texts of this encoding may be the same in UTF-8."""
    return encoding in _TWICE


class Codec:
    """Text of one encoding to UTF-8 and to rows' texts. Thread-safe: what is known of a code is always the same."""

    def __init__(self, encoding: str, ask: Ask) -> None:
        characters = _CHARACTERS.get(encoding, _BYTE)
        self._ask = ask
        self._character = re.compile(characters)
        self._words = re.compile(characters + rb"|[\x00-\x7f]+")
        """Characters, and what stands between them."""
        self._joins = encoding == "EUC_JIS_2004"
        self._single = encoding not in _CHARACTERS
        self._texts: dict[bytes, bytes] = {}
        """The text of each code that is known, or that it does not become the same again."""
        self._odd: dict[bytes, bytes | None] = {}
        """The text of codes that do not become the same again, if they have one."""
        self._joined: set[bytes] = set()

    def is_faithful(self, text: bytes) -> bool:
        """Tell whether text of this encoding comes through UTF-8 as it is."""
        return _ODD not in self.converted(text)

    def converted(self, text: bytes) -> bytes:
        """Return text in UTF-8, and bytes that are in none for what does not come through it."""
        if text.isascii():
            return text
        words = self._words.findall(text)
        self._learn(set(words))
        get = self._texts.get
        if not self._joined:
            return b"".join([get(word, word) for word in words])
        self._learn({a + b for a, b in pairwise(words) if b in self._joined and not a.isascii()})
        texts = [get(word, word) for word in words[:1]]
        for before, word in pairwise(words):
            texts.append(_ODD if word in self._joined and before + word in self._odd else get(word, word))
        return b"".join(texts)

    def replaced(self, text: bytes, replacement: bytes) -> bytes:
        """Return any text in UTF-8, with a replacement for characters that are unknown."""
        words = self._words.findall(text)
        self._learn(set(words))
        texts = {word: self._odd[word] or replacement for word in set(words) if word in self._odd}
        return b"".join([texts.get(word) or self._texts.get(word, word) for word in words])

    def lines(self, block: bytes) -> bytes:
        """Return whole CSV lines of this encoding as the texts of rows."""
        converted = self.converted(block)
        if _ODD not in converted:
            return converted
        lines = zip(split_lines(block), split_lines(converted), strict=True)
        return b"".join([(self._line(line) if _ODD in text else text) + b"\n" for line, text in lines])

    def _line(self, line: bytes) -> bytes:
        return _VALUE.sub(lambda match: self._value(match[0]), line)

    def _value(self, value: bytes) -> bytes:
        text = self.converted(value)
        if _ODD not in text:
            return text
        return b'"' + OWN + value[1:] if value.startswith(b'"') else OWN + value

    def whole(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a text, cut where each can be looked at by itself."""
        rest = b""
        for new_piece in pieces:
            piece = rest + new_piece
            end = self.cut(piece)
            rest = piece[end:]
            yield piece[:end]
        yield rest

    def cut(self, piece: bytes) -> int:
        """Return up to where the beginning of a text can be looked at by itself."""
        if self._single:
            return len(piece)
        end = len(piece.rstrip(_HIGH))
        for match in self._character.finditer(piece, end):
            if match.start() > len(piece) - _LONGEST:
                break
            if not self._learn_is_joined(match[0]):
                end = match.start()
        return end

    def _learn_is_joined(self, code: bytes) -> bool:
        if not self._joins:
            return False
        self._learn({code})
        return code in self._joined

    def _learn(self, words: Collection[bytes]) -> None:
        unknown = sorted(word for word in words if word not in self._texts and not word.isascii())
        for start in range(0, len(unknown), _AT_ONCE):
            self._ask_for(unknown[start : start + _AT_ONCE])

    def _ask_for(self, codes: Sequence[bytes]) -> None:
        pending = [list(codes)]
        while pending:
            batch = pending.pop()
            answers = self._ask(batch)
            if isinstance(answers, bytes):
                pending += self._without(answers, batch)
                continue
            for code, (text, is_lossless) in zip(batch, answers, strict=True):
                if self._joins and text.decode()[0] in _JOINED:
                    self._joined.add(code)
                if not is_lossless:
                    self._odd[code] = text
                self._texts[code] = text if is_lossless else _ODD

    def _without(self, refused: bytes, codes: list[bytes]) -> list[list[bytes]]:
        """Note what was refused; return what is still to be asked for, in two halves where that is unknown."""
        if len(codes) > 1 and refused not in codes:
            middle = len(codes) // 2
            return [codes[:middle], codes[middle:]]
        odd = codes[0] if len(codes) == 1 else refused
        self._odd[odd] = None
        self._texts[odd] = _ODD
        return [rest] if (rest := [code for code in codes if code != odd]) else []

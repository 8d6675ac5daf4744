"""Header values as text that loses no byte: UTF-8, and a surrogate for each byte that is not (PEP 383)."""

from __future__ import annotations

_ENCODING, _ERRORS = "utf-8", "surrogateescape"


def text_of(value: bytes) -> str:
    """Return bytes as text."""
    return value.decode(_ENCODING, _ERRORS)


def bytes_of(text: str) -> bytes:
    """Return the bytes that ``text_of`` made a text of."""
    return text.encode(_ENCODING, _ERRORS)


def latin_1_text(text: str) -> str:
    """Return a text as Latin-1 has it where its bytes are not UTF-8."""
    return text if is_utf_8(text) else bytes_of(text).decode("latin-1")


def is_utf_8(text: str) -> bool:
    """Tell whether the bytes of a text are UTF-8."""
    return text.isascii() or not any("\udc80" <= char <= "\udcff" for char in text)


def printable(text: str) -> str:
    """Return a text that can be printed anywhere: bytes that are not UTF-8 as their hex digits."""
    return bytes_of(text).decode(_ENCODING, "backslashreplace")

"""Header values and names of files as text that loses no byte: each that is not UTF-8 is a surrogate (PEP 383)."""

from __future__ import annotations

import os
from urllib.parse import quote, unquote_to_bytes

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
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Return a text that can be printed anywhere: bytes that are not UTF-8 as their hex digits."""
    return bytes_of(text).decode(_ENCODING, "backslashreplace")


def url_path(path: str | os.PathLike[str]) -> str:
    """Return a path as it stands in a URL: its bytes, percent-encoded."""
    return quote(os.fsencode(path))


def path_of(url_path: str) -> str:
    """Return the path that stands in a URL."""
    return os.fsdecode(unquote_to_bytes(os.fsencode(url_path)))

"""Charsets of clients, as Python reads them.

The server keeps the body of a routine, trigger or event in the charset of the client that made it. A literal with an
introducer (``_binary '…'``) may hold bytes that are no characters of that charset. Text that is read with
``codec_of`` and the error handler ``surrogateescape`` gives the same bytes again, whatever they are.
"""

from __future__ import annotations

_CODECS = {
    "latin1": "cp1252",
    "ascii": "ascii",
    **{f"cp{number}": f"cp{number}" for number in (850, 852, 866, 1250, 1251, 1256, 1257)},
    "koi8r": "koi8_r",
    "koi8u": "koi8_u",
    "greek": "iso8859_7",
    "hebrew": "iso8859_8",
    "latin2": "iso8859_2",
    "latin5": "iso8859_9",
    "latin7": "iso8859_13",
}


def codec_of(charset: str) -> str:
    """Return the codec for a client's charset. Characters of a charset that Python reads otherwise than the server
    stay bytes: its codec is ``ascii``.
    """
    return "utf-8" if charset.startswith("utf8") else _CODECS.get(charset, "ascii")

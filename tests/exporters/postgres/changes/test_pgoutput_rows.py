"""Rows of logical decoding come out of the compiled core as they do out of Python, damaged ones too."""

import contextlib
import struct

from exporters.errors import SourceDamagedError
from exporters.postgres.changes import pgoutput
from exporters.postgres.changes.pgoutput import UNCHANGED, Delete, Insert, Update, decode

HEAD = struct.pack(">I", 4711)
VALUES = (b"1", None, b"", UNCHANGED, "ü\n".encode(), b"x" * 300)


def row(*values):
    sent = {None: b"n", UNCHANGED: b"u"}
    texts = [sent.get(value) or b"t" + struct.pack(">I", len(value)) + value for value in values]
    return struct.pack(">H", len(values)) + b"".join(texts)


MESSAGES = {
    b"I" + HEAD + b"N" + row(*VALUES): Insert(4711, VALUES),
    b"I" + HEAD + b"N" + row(): Insert(4711, ()),
    b"U" + HEAD + b"N" + row(*VALUES): Update(4711, None, False, VALUES),
    b"U" + HEAD + b"K" + row(b"1", None) + b"N" + row(b"2", b"b"): Update(
        4711, (b"1", None), False, (b"2", b"b")
    ),
    b"D" + HEAD + b"O" + row(*VALUES): Delete(4711, VALUES, True),
}


def test_rows_are_read():
    for message, change in MESSAGES.items():
        assert decode(message) == change


def test_the_compiled_core_reads_what_python_reads(monkeypatch):
    def decoded(message):
        with contextlib.suppress(SourceDamagedError):
            return decode(message)

    cut = [message[:length] for message in MESSAGES for length in range(1, len(message))]
    spoiled = [
        message[:at] + byte + message[at + 1 :]
        for message in MESSAGES
        for at in range(1, len(message))
        for byte in (b"\0", b"\7", b"t", b"\xff")
    ]
    messages = [*MESSAGES, *cut, *spoiled]
    fast = [decoded(message) for message in messages]
    monkeypatch.setattr(pgoutput, "core", None)
    assert fast == [decoded(message) for message in messages]

"""Packets as they arrive, in whatever pieces, become the values that were sent."""

import fcntl
import socket
import struct
import termios
import threading

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.errors import SourceError
from exporters.mysql.rows import protocol_rows
from exporters.mysql.rows.protocol_rows import Wire, _Packets, payloads_of
from exporters.mysql.rows.row_columns import columns_of, value_at
from exporters.sql.row_blocks import LongRowText
from tests.tools.waiting import eventually

EOF = b"\xfe\0\0\x02\0"


@pytest.fixture(autouse=True, scope="module")
def nobody_to_wait_for():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol_rows, "PAUSE_SECONDS", 0)
        yield


def length_encoded(value: bytes | None) -> bytes:
    """MySQL's documentation of the protocol, "Length-Encoded String"."""
    if value is None:
        return b"\xfb"
    size = len(value)
    if size < 251:
        return bytes([size]) + value
    for mark, width in ((0xFC, 2), (0xFD, 3), (0xFE, 8)):
        if size < 256**width:
            return bytes([mark]) + size.to_bytes(width, "little") + value
    raise AssertionError


def packets(payload: bytes) -> bytes:
    """A payload in packets; one of the full length is followed by another, if by an empty one."""
    found = b""
    while True:
        piece, payload = payload[: 2**24 - 1], payload[2**24 - 1 :]
        found += len(piece).to_bytes(3, "little") + b"\x01" + piece
        if len(piece) < 2**24 - 1:
            return found


def reader(data: bytes, pieces: list[int]):
    """Deliver ``data`` in pieces of these sizes, over and over; much of it in larger ones."""
    position, turn, least = 0, 0, len(data) // 200

    def read(view: memoryview) -> int:
        nonlocal position, turn
        size = min(len(view), max(pieces[turn % len(pieces)], least), len(data) - position)
        view[:size] = data[position : position + size]
        position, turn = position + size, turn + 1
        return size

    return read


def rows_of(
    table: list[list[bytes | None]], pieces: list[int]
) -> tuple[list[list[bytes | None]], list[bytes]]:
    """Return the rows, and the payloads of those that came in pieces."""
    data = b"".join(packets(b"".join(map(length_encoded, row))) for row in table) + packets(EOF)
    found = []
    long: list[bytes] = []
    for block in _Packets(reader(data, pieces)).blocks():
        if isinstance(block, LongRowText):
            long.append(b"".join(block.pieces))
            continue
        rows = payloads_of(block)
        columns = columns_of(rows, [pa.binary()] * len(table[0]))
        sent = table[len(found) : len(found) + len(rows)]
        assert rows == [b"".join(map(length_encoded, row)) for row in sent]
        found += [list(row) for row in zip(*(column.to_pylist() for column in columns), strict=True)]
    return found, long


values = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.sampled_from([b"\xfe" * 8, b"\xff" * 3, b"v" * 250, b"v" * 251, b"v" * 65535, b"v" * 65536]),
)


@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(values, min_size=width, max_size=width), min_size=1, max_size=12)
    ),
    st.lists(st.integers(1, 50_000), min_size=1, max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_values_arrive_as_they_were_sent(table, pieces):
    assert rows_of(table, pieces) == (table, [])


def test_blocks_end_at_rows(monkeypatch):
    monkeypatch.setattr(protocol_rows, "BLOCK_BYTES", 300)
    monkeypatch.setattr(protocol_rows, "BUFFER_BYTES", 100)
    table = [[b"%d" % i, b"x" * (i % 400)] for i in range(450)]
    assert rows_of(table, [70, 1000]) == (table, [])


def test_a_row_of_sixteen_megabytes_and_more():
    exact = b"y" * (2**24 - 1 - 9 - 2)
    for big in (exact, b"z" * (2**24 + 7)):
        table = [[b"1", b"small"], [b"3", None], [b"2", big]]
        row = b"".join(map(length_encoded, table[-1]))
        assert rows_of(table, [2**22, 2**16]) == (table[:-1], [row])


def test_a_value_alone_is_found():
    data = length_encoded(b"a") + length_encoded(None) + length_encoded(b"b" * 300)
    assert value_at(data, 0) == (b"a", 2)
    assert value_at(data, 2) == (None, 3)
    assert value_at(data, 3) == (b"b" * 300, len(data))
    assert [c.to_pylist() for c in columns_of([data], [pa.binary()] * 3)] == [
        [b"a"],
        [None],
        [b"b" * 300],
    ]


def test_a_broken_line_is_told():
    data = packets(length_encoded(b"x"))
    with pytest.raises(EOFError, match="middle of the rows"):
        list(_Packets(reader(data, [100])).blocks())


def test_rows_of_another_table_are_not_taken_for_ours():
    row = length_encoded(b"1") + length_encoded(b"two")
    for count in (1, 3):
        with pytest.raises(SourceError, match="other columns"):
            columns_of([row, row], [pa.binary()] * count)


class AnsweredConnection:
    """A driver's connection whose server answers by what comes out of a socket."""

    def __init__(self, ours: socket.socket) -> None:
        self._rfile = ours.makefile("rb")

    def _execute_command(self, command: int, statement: str) -> None:
        pass


def test_rows_end_where_the_end_arrives_with_the_last_bytes_of_a_large_row():
    """The export waited for ever: a buffered reader had the end, and waited for more before it gave that away."""
    ours, servers = socket.socketpair()
    row, column = packets(length_encoded(b"x" * 400_000)), packets(b"a definition")
    head, end = packets(b"\x01") + column + packets(EOF), packets(EOF)

    def answer() -> None:
        servers.sendall(head + row[:-5000])
        eventually(lambda: not struct.unpack("i", fcntl.ioctl(servers, termios.TIOCOUTQ, bytes(4)))[0])
        servers.sendall(row[-5000:] + end)

    ours.settimeout(20)
    with ours, servers:
        server = threading.Thread(target=answer)
        server.start()
        blocks = list(Wire(AnsweredConnection(ours)).query("SELECT a FROM t"))
        server.join()
    assert [payload for block in blocks for payload in payloads_of(block)] == [row[4:]]

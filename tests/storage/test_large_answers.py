"""Large bodies that follow each other on one connection, however their heads and bodies arrive."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from migrate.storage.s3.http.connection import Connection, Endpoint

LARGE = os.urandom(3 * 2**20)


def head(size_bytes: int) -> bytes:
    """Return the head of an answer with a body of this size."""
    return f"HTTP/1.1 200 OK\r\nserver: a test\r\ncontent-length: {size_bytes}\r\n\r\n".encode()


@contextmanager
def answering(*answers: tuple[bytes, ...]) -> Iterator[Connection]:
    """Return a connection to a server that answers each request in these pieces, and then closes it.

    A client that has read enough may leave first.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            accepted, _ = listening.accept()
            with accepted, suppress(ConnectionError):
                for pieces in answers:
                    assert accepted.recv(1000)
                    for piece in pieces:
                        accepted.sendall(piece)
                        time.sleep(0.02)

        thread = threading.Thread(target=serve)
        thread.start()
        connection = Connection(Endpoint(listening.getsockname()))
        try:
            yield connection
        finally:
            thread.join()
            connection.close()


def bodies(connection: Connection, count: int) -> list[bytes]:
    """Ask so many times; return the bodies."""
    answers = []
    for _ in range(count):
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        answers.append(connection.receive().body)
    return answers


def test_a_large_body_is_whole_whatever_came_before_it() -> None:
    large, interim = head(len(LARGE)), b"HTTP/1.1 100 Continue\r\n\r\n"
    with answering(
        (large + LARGE,),
        (large[:20], large[20:-3], large[-3:] + LARGE[:5], LARGE[5:2000], LARGE[2000:]),
        (interim, interim + large, LARGE),
        (head(5) + b"small",),
        (head(0),),
        (large + LARGE,),
    ) as connection:
        assert bodies(connection, 6) == [LARGE, LARGE, LARGE, b"small", b"", LARGE]


def test_a_large_body_that_breaks_off_is_no_answer() -> None:
    large = head(len(LARGE))
    for broken in ((large + LARGE[:-1],), (large,), (large[:30],)):
        with answering((large + LARGE,), broken) as connection:
            assert bodies(connection, 1) == [LARGE]
            with pytest.raises(ConnectionError, match="broke"):
                bodies(connection, 1)


def chunk(size: str, body: bytes = b"") -> bytes:
    """Return a chunk, whatever size it says."""
    return size.encode() + b"\r\n" + body + b"\r\n"


CHUNKED = b"HTTP/1.1 %d x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("status", [200, 500])
def test_of_a_chunk_no_more_is_read_than_was_asked_for(status: int) -> None:
    """Its size may be any: all of it was held in memory before anybody looked. What comes with an error is short."""
    begun = CHUNKED % status + chunk("ffffffffffff", LARGE)  # and no end
    with answering((begun,)) as connection:
        connection.send(b"GET / HTTP/1.1\r\n\r\n", most_bytes=1000)
        body = connection.receive().body
    assert (LARGE.startswith(body), len(body)) == (True, 1001 if status == 200 else 2**20 + 1)


def test_chunks_are_one_body_and_one_of_less_than_nothing_is_none() -> None:
    whole = b"".join([CHUNKED % 200, chunk("5", b"abcde"), chunk("300000", LARGE), chunk("0")])
    with answering(
        (whole[:100], whole[100:-4], whole[-4:]), (CHUNKED % 200 + chunk("-5", b"abcde"),)
    ) as connection:
        assert bodies(connection, 1) == [b"abcde" + LARGE]
        with pytest.raises(ConnectionError, match="-5"):
            bodies(connection, 1)

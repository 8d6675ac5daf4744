"""Writers that do not stop."""

import threading
from contextlib import contextmanager

import psycopg

_REST_SECONDS = 0.01
"""Between two transactions of one: without rest they take all processors, and the others wait."""


@contextmanager
def writing(url, write, count=4):
    """``count`` sessions that call ``write(connection, writer, number)`` again and again, writers and numbers from 1
    on; yields a list that grows by what these calls return, once that is acknowledged.
    """
    stop, written = threading.Event(), []

    def go_on(writer):
        with psycopg.connect(url, autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                written.extend(write(connection, writer, number))
                stop.wait(_REST_SECONDS)

    threads = [threading.Thread(target=go_on, args=(writer,)) for writer in range(1, count + 1)]
    for thread in threads:
        thread.start()
    try:
        yield written
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def writers(url, count=4):
    """Writers that append to ``log`` in transactions of two rows; yields what is acknowledged."""

    def write(connection, writer, number):
        rows = [(writer, 2 * number), (writer, 2 * number + 1)]
        connection.execute(
            f"INSERT INTO log VALUES ({writer}, {rows[0][1]}, 'a'), ({writer}, {rows[1][1]}, 'b')".encode()
        )
        return rows

    return writing(url, write, count)

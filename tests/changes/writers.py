"""Writers that do not stop."""

import threading
from contextlib import contextmanager

import psycopg


@contextmanager
def writers(url, count=4):
    """Writers that append to ``log`` in transactions of two rows; yields what is acknowledged."""
    stop, written = threading.Event(), []

    def write(writer):
        with psycopg.connect(url, autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                number += 2
                connection.execute(
                    f"INSERT INTO log VALUES ({writer}, {number}, 'a'), ({writer}, {number + 1}, 'b')".encode()
                )
                written.extend([(writer, number), (writer, number + 1)])

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(1, count + 1)]
    for thread in threads:
        thread.start()
    try:
        yield written
    finally:
        stop.set()
        for thread in threads:
            thread.join()

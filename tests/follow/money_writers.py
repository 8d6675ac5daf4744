"""Writers that transfer money and note each transfer, as an application does while its database moves."""

import contextlib
import threading


class MoneyWriters:
    """Writers that transfer money until the database refuses it. ``acknowledged``: the last number of each writer.
    ``comes_back``: where the server goes away, a writer waits, and goes on after what was committed.
    """

    refusals: tuple[type[Exception], ...]
    """The driver's errors of a hold, and of a server that has gone."""

    def __init__(self, count, *, comes_back=False):
        self._comes_back = comes_back
        self.acknowledged = dict.fromkeys(range(1, count + 1), 0)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(writer,)) for writer in self.acknowledged]
        for thread in self._threads:
            thread.start()

    def _write(self, writer):
        while not self._stop.wait(0.2):
            with contextlib.suppress(*self.refusals):
                self._write_until_refused(writer)
            if not self._comes_back:
                return

    def _write_until_refused(self, writer):
        """Transfer, each time with the number after the acknowledged one. Raises ``refusals``."""
        raise NotImplementedError

    def _begin_after(self, writer, committed):
        """Go on after the last number that the old server has of a writer."""
        assert 0 <= committed - self.acknowledged[writer] <= 1, "the old server has lost a commit"
        self.acknowledged[writer] = committed

    def end_coming_back(self):
        """From now on a writer ends where the database refuses it."""
        self._comes_back = False

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def check_arrived(self, fetch, old, new, condition):
        """Each transfer that was acknowledged is at the new database, once. ``condition``: for the rows of writers."""
        for table in ("log", "keyless"):
            query = f"SELECT writer, count(*), max(number) FROM {table} WHERE {condition} GROUP BY writer ORDER BY 1"
            arrived = fetch(new, query)
            assert arrived == fetch(old, query)
            for writer, count, last in arrived:
                # a transaction whose answer the hold cut off may have been committed
                assert count == last
                assert 0 <= last - self.acknowledged[writer] <= 1

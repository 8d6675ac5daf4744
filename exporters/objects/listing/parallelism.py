"""How many listings at once bring more rows than fewer do."""

from __future__ import annotations

import time

PAGES = 8
"""So many pages of each listing are looked at before it is tried whether more of them bring more."""
_GROWS = 1.2


class Crowd:
    """Twice as many as long as the rate grows with it, then as many as were worth it. Not thread-safe: it is used
    under a lock.
    """

    def __init__(self, most: int) -> None:
        self.wanted = 1
        self._most = most
        self.worth = 1
        """So many have brought more than fewer."""
        self._best_rate = 0.0
        self._settled = False
        self._restart()

    def note(self, rows: int) -> None:
        """Say that a page came."""
        self._rows += rows
        self._pages += 1

    def reconsider(self, active: int) -> int:
        """Return how many are wanted, where ``active`` are under way."""
        if active < self.wanted or self._settled:
            self._restart()
        elif self._pages >= PAGES * self.wanted:
            rate = self._rows / max(time.monotonic() - self._since, 1e-9)
            if rate > self._best_rate * _GROWS:
                self._best_rate = rate
                self.worth = self.wanted
                self._settled = self.wanted == self._most
                self.wanted = min(2 * self.wanted, self._most)
            else:
                self.wanted //= 2
                self._settled = True
            self._restart()
        return self.wanted

    def _restart(self) -> None:
        self._rows = self._pages = 0
        self._since = time.monotonic()

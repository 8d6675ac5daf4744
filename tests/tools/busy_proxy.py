"""An HTTP proxy in front of an S3 server that answers 503 to all requests beyond a few at once, or loses answers."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.tools.http_proxy import Answer, Asked, HttpProxy


@dataclass(slots=True)
class BusyProxy(HttpProxy):
    """``with BusyProxy(server.endpoint, most=4) as proxy:`` for clients of ``proxy.endpoint``. ``refused`` counts the
    503s, with Retry-After. ``lose`` tells of which requests (method, path)
    the answer is lost: the server has done them, the client hears nothing; ``lost`` counts them.
    """

    most: int = 1000
    delay_seconds: float = 0.0
    lose: Callable[[str, str], bool] | None = None
    lost: int = 0
    refused: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def handle(self, asked: Asked) -> Answer | None:
        with self._lock:
            busy = self._at_once >= self.most
            self._at_once += not busy
            self.refused += busy
        if busy:
            return Answer(503, (("Retry-After", "0.2"),))
        try:
            threading.Event().wait(self.delay_seconds)
            answer = self.forward(asked)
            if self.lose is None or not self.lose(asked.method, asked.destination):
                return answer
            self.lost += 1
            return None
        finally:
            with self._lock:
                self._at_once -= 1


@dataclass
class EveryThird:
    """Loses the answer to every third request of these methods below ``/k``, from the first on; ``asked`` counts."""

    asked: dict[str, int]

    def __call__(self, method: str, path: str) -> bool:
        """Tell whether this one is lost."""
        if "/k" not in path or method not in self.asked:
            return False
        self.asked[method] += 1
        return self.asked[method] % 3 == 1

"""An HTTP proxy in front of an S3 server that shuts out one account after a while: an eviction in the middle."""

import threading
from dataclasses import dataclass, field

from tests.tools.http_proxy import Answer, Asked, HttpProxy, refusal


@dataclass(slots=True)
class ShutProxy(HttpProxy):
    """``with ShutProxy(server.endpoint, account=key, after=10) as proxy:`` lets ``after`` requests of the account pass
    and refuses all others from then on; other accounts are not concerned. ``passed`` and ``refused`` count.
    """

    account: str = ""
    after: int = 1 << 60
    passed: int = 0
    refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def handle(self, asked: Asked) -> Answer | None:
        if f"Credential={self.account}/" in (asked.header("Authorization") or ""):
            with self._lock:
                shut = self.passed >= self.after
                self.passed += not shut
                self.refused += shut
            if shut:
                return refusal(403, "AccessDenied")
        return self.forward(asked)

"""An HTTP proxy in front of an S3 server of which single objects cannot be read, or nothing at all."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.tools.http_proxy import Answer, Asked, HttpProxy, refusal


@dataclass(slots=True)
class RottenProxy(HttpProxy):
    """``with RottenProxy(server.endpoint, rotten=…, status=500) as proxy:`` answers ``status`` to the requests that
    ``rotten`` names; ``refused`` counts them.
    """

    rotten: Callable[[Asked], bool] = lambda asked: False
    status: int = 500
    refused: int = 0

    def handle(self, asked: Asked) -> Answer | None:
        if self.rotten(asked):
            self.refused += 1
            return refusal(self.status, "InternalError" if self.status >= 500 else "AccessDenied")
        return self.forward(asked)

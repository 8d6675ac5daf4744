"""An HTTP proxy in front of an S3 server of which single objects cannot be read, or nothing at all."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.tools.http_proxy import Answer, Asked, HttpProxy, refusal


@dataclass(slots=True)
class RottenProxy(HttpProxy):
    """``with RottenProxy(server.endpoint, rotten=…, status=500) as proxy:`` answers ``status`` to the requests that
    ``rotten`` names, with the ``code`` of the error where it is not the usual one; ``refused`` counts them.
    """

    rotten: Callable[[Asked], bool] = lambda asked: False
    status: int = 500
    code: str = ""
    refused: int = 0

    def handle(self, asked: Asked) -> Answer | None:
        if self.rotten(asked):
            self.refused += 1
            usual = "InternalError" if self.status >= 500 else "AccessDenied"
            return refusal(self.status, self.code or usual)
        return self.forward(asked)

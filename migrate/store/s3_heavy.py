"""Whole objects of more than a MiB, put by threads through boto3's connections.

The C client does not tell how far a body has left, sends it again by itself, and has a slow start of its own where a
server is far away. For so many bytes a thread costs nothing.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

from migrate.store.flow import Body, carrying
from migrate.store.s3_client import translate
from migrate.store.s3_crt import CrtClient, Request, Response
from migrate.store.s3_description import ascii_only
from migrate.store.s3_wire import FOREIGN, Wire, is_kept

HEAVY_BYTES = 2**20
AT_ONCE = 16
"""At most: each has its body in memory, which its caller's window bounds."""


def is_heavy(request: Request) -> bool:
    """Tell whether a request goes this way."""
    return request.method == "PUT" and len(request.body) > HEAVY_BYTES and is_kept(request.key)


class HeavyPending:
    """A request on its way; see ``Pending``."""

    also = None

    def __init__(self, future: Future[Response]) -> None:
        self._future = future

    def wait(self) -> Response:
        """Return the answer. Raises ``MoveoutError``."""
        return self._future.result()

    def cancel(self) -> None:
        """Give the request up, if it has not begun."""
        self._future.cancel()


class Heavy:
    """Sends for one bucket. ``careful`` takes what is not a plain success. Thread-safe."""

    def __init__(self, wire: Wire, careful: CrtClient) -> None:
        self._wire, self._careful = wire, careful
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="moveout-heavy")

    def send(self, request: Request, body: Body | None) -> HeavyPending:
        """Send a request; do not wait."""
        return HeavyPending(self._threads.submit(self._put, request, body))

    def _put(self, request: Request, body: Body | None) -> Response:
        headers = {name: ascii_only(value) for name, value in request.headers.items()}
        try:
            with carrying(body) if body is not None else nullcontext():
                found = self._wire.put(request.key, request.query, headers, bytes(request.body))
        except FOREIGN as exc:
            raise translate(exc, request.key) from exc
        return self._careful.call(request) if found is None else Response(200, found, b"")

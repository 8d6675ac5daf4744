"""Requests sent by threads through boto3's connections, because the C client is no good for them.

- Whole objects of more than a MiB. The C client does not tell how far a body has left, sends it again by itself, and
  has a slow start of its own where a server is far away. For so many bytes a thread costs nothing.
- Headers that are not printable, and HEAD, whose answer may have such. The C client can neither send nor receive bytes
  that are not UTF-8, and signs spaces of other scripts as they are, where servers take each for a plain one.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

from migrate.storage.inflight_limit import Body, carrying
from migrate.storage.s3.client import translate
from migrate.storage.s3.transport.crt_client import CrtClient, Request, Response
from migrate.storage.s3.transport.http import FOREIGN, Wire, is_kept

HEAVY_BYTES = 2**20
AT_ONCE = 16
"""At most: each has its body in memory, which its caller's window bounds."""


def is_heavy(request: Request) -> bool:
    """Tell whether a request goes this way."""
    large = request.method == "PUT" and len(request.body) > HEAVY_BYTES
    return (large or not _is_for_the_c_client(request)) and is_kept(request.key)


def _is_for_the_c_client(request: Request) -> bool:
    return request.method != "HEAD" and all(map(str.isprintable, request.headers.values()))


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
        return HeavyPending(self._threads.submit(self.call, request, body))

    def call(self, request: Request, body: Body | None = None) -> Response:
        """Send a request and wait. Raises ``MoveoutError``."""
        key, query, headers, data = request.key, request.query, request.headers, bytes(request.body)
        try:
            with carrying(body) if body is not None else nullcontext():
                if not _is_for_the_c_client(request):
                    return self._wire.once(request.method, key, query, headers, data)
                found = self._wire.put(key, query, headers, data)
        except FOREIGN as exc:
            raise translate(exc, key) from exc
        return self._careful.call(request) if found is None else Response(200, found, b"")

    def read(self, request: Request) -> Response:
        """Send a request whose answer has headers that the C client cannot read. Raises ``MoveoutError``."""
        try:
            return self._wire.once(request.method, request.key, request.query, request.headers, b"")
        except FOREIGN as exc:
            raise translate(exc, request.key) from exc

"""Large objects read in ranges, several at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate

from msgspec.structs import replace

from migrate.storage.s3.http.concurrent_requests import Requests
from migrate.storage.s3.http.messages import Request

AT_ONCE = 6
"""At most, where the window has room for them."""


def read_ranges(
    requests: Requests, request: Request, sizes: Sequence[int], *, window_bytes: int
) -> Iterator[bytes]:
    """Yield ranges of these sizes, one behind the other, in order; a few are read ahead, at most ``window_bytes`` of
    them. A range may be of another size where the object is. Raises ``MoveoutError``.
    """
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="moveout-read") as executor:
        under_way: deque[tuple[Future[bytes], int]] = deque()
        ahead_bytes = 0
        try:
            for start, length in zip(accumulate(sizes, initial=0), sizes, strict=False):
                while under_way and (
                    len(under_way) >= requests.limiter.of(AT_ONCE) or ahead_bytes + length > window_bytes
                ):
                    future, size_bytes = under_way.popleft()
                    ahead_bytes -= size_bytes
                    yield future.result()
                under_way.append((executor.submit(read_range, requests, request, start, length), length))
                ahead_bytes += length
            while under_way:
                yield under_way.popleft()[0].result()
        finally:
            for future, _ in under_way:
                future.cancel()


def read_range(requests: Requests, request: Request, start: int, length: int) -> bytes:
    """Return one range. Raises ``MoveoutError``."""
    if not length:  # no range means nothing
        return b""
    headers = {**request.headers, "Range": f"bytes={start}-{start + length - 1}"}
    return requests.call(replace(request, headers=headers)).body

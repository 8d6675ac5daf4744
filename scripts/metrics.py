"""What a MinIO itself counted: traffic and requests as the server saw them, not as a client claims them."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter

_API = "/minio/metrics/v3/api/requests"
_RECEIVED = re.compile(
    r'^minio_api_requests_traffic_received_bytes\{[^}]*type="s3"[^}]*\} (\S+)$', re.MULTILINE
)
_REQUESTS = re.compile(
    r'^minio_api_requests_total\{[^}]*name="([^"]+)"[^}]*type="s3"[^}]*\} (\S+)$', re.MULTILINE
)


def received_bytes(endpoint: str) -> int:
    """Return the bytes of request bodies that the server received so far (metrics v3, API requests)."""
    return int(sum(float(value) for value in _RECEIVED.findall(_read(endpoint))))


def requests(endpoint: str) -> Counter[str]:
    """Return how many requests the server has answered so far, by operation (``GetObject`` …)."""
    return Counter({name: int(float(value)) for name, value in _REQUESTS.findall(_read(endpoint))})


def _read(endpoint: str) -> str:
    with urllib.request.urlopen(endpoint + _API, timeout=60) as response:
        body: bytes = response.read()
    return body.decode()

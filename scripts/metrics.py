"""What a MinIO itself counted: traffic as the server saw it, not as a client claims it."""

from __future__ import annotations

import re
import urllib.request

_RECEIVED = re.compile(
    r'^minio_api_requests_traffic_received_bytes\{[^}]*type="s3"[^}]*\} (\S+)$', re.MULTILINE
)


def received_bytes(endpoint: str) -> int:
    """Return the bytes of request bodies that the server received so far (metrics v3, API requests)."""
    with urllib.request.urlopen(f"{endpoint}/minio/metrics/v3/api/requests", timeout=10) as response:
        text = response.read().decode()
    return int(sum(float(value) for value in _RECEIVED.findall(text)))

"""What is known to be missing of an object that was read."""

from __future__ import annotations

from collections.abc import Iterator

from exporters.base import Loss
from exporters.bucket import Fetched


def losses(found: Fetched) -> Iterator[Loss]:
    """Yield what is known to be missing of an object that was read."""
    missing = found.headers.get("x-amz-missing-meta")
    if missing is not None:
        yield Loss(
            found.summary.name,
            "user metadata",
            f"the server holds {missing} entries that it cannot send as headers",
        )
    if "x-amz-server-side-encryption-customer-algorithm" in found.headers:
        yield Loss(
            found.summary.name, "encryption", "encrypted with a key of the customer's own: stored in clear"
        )

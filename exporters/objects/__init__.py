"""Object storage as a source: buckets of S3 and of servers with its API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporters.objects.source import ObjectExporter

__all__ = ["ObjectExporter"]


def __getattr__(name: str) -> Any:
    """Import the exporter when it is asked for (PEP 562): who only wants to know what is peculiar to a server need not
    wait for it.
    """
    if name != "ObjectExporter":
        raise AttributeError(name)
    from exporters.objects.source import ObjectExporter  # noqa: PLC0415  see above

    return ObjectExporter

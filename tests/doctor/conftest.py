"""A small disk."""

from tests.tools.disks import tiny_disk

__all__ = ["tiny_disk"]

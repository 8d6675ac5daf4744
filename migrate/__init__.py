"""Moves bundles: export, transfer, verify, restore."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("moveout")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"

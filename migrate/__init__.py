"""Moves bundles: export, transfer, verify, restore."""

VERSION = "0.1.0"
"""That of ``pyproject.toml``. To ask for it as that of an installed package takes a thirtieth of a start."""


def software() -> str:
    """Name and version of this software."""
    return f"moveout {VERSION}"

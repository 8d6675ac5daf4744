"""Moves bundles: export, transfer, verify, restore."""

VERSION = "0.1.0"
"""As in ``pyproject.toml``. ``importlib.metadata`` would need a thirtieth of a start to answer the same."""


def software() -> str:
    """Name and version of this software."""
    return f"moveout {VERSION}"

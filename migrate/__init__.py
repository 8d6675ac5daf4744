"""Moves bundles: export, transfer, verify, restore."""


def software() -> str:
    """Name and version of this software."""
    from importlib.metadata import version  # noqa: PLC0415  a tenth of a start, and only who seals asks

    return f"moveout {version('moveout')}"

"""The names of kinds that are made of others: ``list(text)``, ``struct(int,list(date))``."""

from __future__ import annotations

from functools import lru_cache

_EARLIER = {f"{name}list": ("list", ("int",)) for name in ("int2", "int4", "int8")}
"""What arrays of whole numbers are called."""


def named(shape: str, *inner: str) -> str:
    """Return the name of a kind."""
    return f"{shape}({','.join(inner)})"


@lru_cache(4096)
def apart(kind: str) -> tuple[str, tuple[str, ...]]:
    """Return the shape and the inner kinds; a kind that is made of nothing is its own shape."""
    if kind in _EARLIER:
        return _EARLIER[kind]
    shape, found, inner = kind.partition("(")
    if not found:
        return kind, ()
    names, depth = [""], 0
    for character in inner[:-1]:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            names.append("")
        else:
            names[-1] += character
    return shape, tuple(names)

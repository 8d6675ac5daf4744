"""JSON as the bundle writes it: one byte sequence for one value, so that the same bundle has the same bytes.

Keys sorted, no spaces, non-ASCII escaped (a lone surrogate from a key that is not UTF-8 survives that way).
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from migrate.errors import DamageError, UsageError, decoding

T = TypeVar("T")


_KINDS = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
"""What JSON calls values that are no objects."""


def encode(value: Any) -> bytes:
    """Return ``value`` as one line of canonical JSON, without a newline."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def encode_pretty(value: Any) -> bytes:
    """Return ``value`` as indented JSON for people, with a newline at the end; as deterministic as
    ``encode``.
    """
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False).encode("ascii") + b"\n"


def decode(data: bytes, key: str, *, version: int | None = None, next_step: str = "") -> dict[str, Any]:
    """Parse the JSON object in the file ``key``. Raises ``DamageError`` that names it, with ``next_step`` in place of
    the usual one. ``version``: the object has one, and it must be this; raises as ``check_version`` does.
    """
    expected = "a JSON object"
    with decoding(key, expected, next_step=next_step):
        value = json.loads(data)
    if not isinstance(value, dict):
        found = f"a JSON {_KINDS[type(value)]}"
        raise DamageError(key, expected=expected, found=found, next_step=next_step)
    if version is not None:
        check_version(value, key, version)
    return value


def decode_entries(data: bytes, key: str, kind: type[T], *, holds_bytes: bool = False) -> list[T]:
    """Parse the JSON list in the file ``key``, whose entries are objects of this ``TypedDict``. ``holds_bytes``: texts
    may hold bytes, each as ``surrogateescape`` has it. Raises ``DamageError`` that names the file and the value.
    """
    with decoding(key, "a JSON list"):
        value = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape" if holds_bytes else "strict")
        msgspec.convert(value, list[kind])  # type: ignore[valid-type]
    entries: list[T] = value
    return entries


def check_version(value: dict[str, Any], key: str, known: int) -> None:
    """Raise ``UsageError`` if ``key`` is of another version of the format, ``DamageError`` if it has no version."""
    version = value.get("version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise DamageError(key, expected="a version number", found=repr(version))
    if version != known:
        raise UsageError(
            f"{key} was made by another version of the format: it has version {version}, and this moveout reads"
            f" version {known}",
            next_step="use the moveout that wrote it, or a newer one"
            if version > known
            else "use the moveout that wrote it; to export with this one, name a new location",
        )

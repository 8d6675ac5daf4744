"""What a leaf of a bundle's tree says: JSON as short as it can be, since a proof has to carry it whole.

Members are sorted, there are no spaces, and the text is UTF-8: only what JSON must escape is escaped (RFC 8259, section
7). A key whose JSON would be longer than its base64 stands as ``key_base64``: no key takes more than 4/3 of its bytes.
"""

from __future__ import annotations

import base64
import json
from json.encoder import encode_basestring as quoted
from typing import Any

__all__ = ["decode", "encode", "item_of", "key_field", "quoted", "salted"]

MEMBERS = {
    "object": {
        "bucket", "disposition", "etag", "key", "last_modified", "reason", "sha256", "size", "source", "version_id",
    },
    "part": {"file", "rows", "schema", "sha256", "source", "table"},
}  # fmt: skip
"""What an item of each kind has, next to its kind."""

_KEY, _KEY_BASE64 = "key", "key_base64"


def encode(item: dict[str, Any]) -> str:
    """Return an item that has no key as JSON."""
    return json.dumps(item, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_field(key: str) -> str:
    """Return a key as the member of an item that it is: name, colon, value."""
    text = quoted(key)
    escapes = len(text) - 2 - len(key)
    if escapes:
        data = key.encode(errors="surrogatepass")  # a key that somebody asks for, and no bundle has
        if len(data) + escapes > -(-len(data) // 3) * 4:
            return f'"{_KEY_BASE64}":"{base64.b64encode(data).decode()}"'
    return f'"{_KEY}":{text}'


def salted(item: str, salt: str) -> bytes:
    """Return the leaf of an item, given as JSON."""
    return f'{{"item":{item},"salt":"{salt}"}}'.encode()


def item_of(leaf: bytes) -> dict[str, Any]:
    """Return the item that a leaf shows. Raises ``ValueError``."""
    try:
        value = json.loads(leaf)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    return _plain(value.get("item") if isinstance(value, dict) else None)


def decode(item: str) -> dict[str, Any]:
    """Return an item, given as JSON, with its key as text. Raises ``ValueError``."""
    return _plain(json.loads(item))


def _plain(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict) or {_KEY, _KEY_BASE64} <= item.keys():
        raise ValueError("a leaf that names no item, or two")
    plain: dict[str, Any] = item
    if _KEY_BASE64 in plain:
        plain = {**plain, _KEY: base64.b64decode(str(plain[_KEY_BASE64]), validate=True).decode()}
    kind = plain.get("kind")
    if not isinstance(kind, str) or not MEMBERS.get(kind, {"kind of item"}) <= plain.keys():
        raise ValueError("a leaf that lacks what an object or a part has")
    return plain

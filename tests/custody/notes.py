"""A reader of signed notes, checkpoints and proofs by the words of their specifications (c2sp.org/signed-note,
/tlog-checkpoint, /tlog-proof; RFC 6962, section 2.1.1). It shares nothing with moveout but the Ed25519 of a library.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_PROOF = "c2sp.org/tlog-proof@v1"


class RefusedError(Exception):
    """It is not what the specification says, or proves nothing."""


def read(data: bytes, keys: Sequence[str]) -> dict[str, Any]:
    """Return what a checkpoint says, or a proof; ``keys`` as the specification of notes writes verifiers."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise RefusedError("no UTF-8") from exc
    if not text.startswith(f"{_PROOF}\n"):
        return _checkpoint(text, keys)
    head, empty, rest = text.partition("\n\n")
    if not empty:
        raise RefusedError("no checkpoint")
    found = _checkpoint(rest, keys)
    lines = head.split("\n")[1:]
    if len(lines) < 2 or not lines[0].startswith("extra ") or not lines[1].startswith("index "):
        raise RefusedError("a proof without its lines extra and index")
    record, index = _base64(lines[0][6:]), _number(lines[1][6:])
    siblings = [_base64(line) for line in lines[2:]]
    if any(len(one) != 32 for one in siblings) or index >= found["size"]:
        raise RefusedError("no proof")
    if _root(_hash(b"\0" + record), index, found["size"], siblings) != _base64(found["hash"]):
        raise RefusedError("another root")
    return found | {"record": record.decode(), "index": index}


def _root(node: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root over a leaf, by the recursion of the RFC: its path is that in its own half, then the other half."""
    if size == 1:
        if path:
            raise RefusedError("a path that is too long")
        return node
    if not path:
        raise RefusedError("a path that is too short")
    left = 1 << (size - 1).bit_length() - 1
    if index < left:
        return _hash(b"\1" + _root(node, index, left, path[:-1]) + path[-1])
    return _hash(b"\1" + path[-1] + _root(node, index - left, size - left, path[:-1]))


def _checkpoint(text: str, keys: Sequence[str]) -> dict[str, Any]:
    body, signers, unknown = _note(text, keys)
    lines = body.split("\n")
    if len(lines) < 4 or not lines[0] or "" in lines[3:-1]:
        raise RefusedError("no checkpoint")
    return {
        "origin": lines[0], "size": _number(lines[1]), "hash": lines[2], "rest": "\n".join(lines[3:]),
        "signers": signers, "unknown": unknown,
    }  # fmt: skip


def _note(text: str, keys: Sequence[str]) -> tuple[str, int, int]:
    """Return the text of a note, how many of the keys have signed it, and how many others."""
    if any(ord(char) < 0x20 and char != "\n" for char in text):
        raise RefusedError("a control character")
    before, empty, after = text.rpartition("\n\n")
    if not empty or not after.endswith("\n"):
        raise RefusedError("no note")
    body, known = f"{before}\n", dict(map(_verifier, keys))
    signers = unknown = 0
    for line in after[:-1].split("\n"):
        dash, name, value = ([*line.split(" "), "", ""])[:3]
        if dash != "\N{EM DASH}" or not _is_name(name) or line.count(" ") != 2:
            raise RefusedError("no signature line")
        signature = _base64(value)
        key = known.get((name, signature[:4]))
        if key is None:
            unknown += 1
            continue
        try:
            key.verify(signature[4:], body.encode())
        except InvalidSignature as exc:
            raise RefusedError("a signature that does not hold") from exc
        signers += 1
    if not signers:
        raise RefusedError("signed by no known key")
    return body, signers, unknown


def _verifier(text: str) -> tuple[tuple[str, bytes], Ed25519PublicKey]:
    name, hint, value = text.split("+", 2)
    key = _base64(value)
    number = bytes.fromhex(hint)
    if key[:1] != b"\1" or len(key) != 33 or number != _hash(name.encode() + b"\n" + key)[:4]:
        raise RefusedError("no verifier of Ed25519")
    return (name, number), Ed25519PublicKey.from_public_bytes(key[1:])


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(unicodedata.category(char)[0] == "Z" for char in name)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or (text[0] == "0" and text != "0"):
        raise RefusedError("no number")
    return int(text)


def _base64(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise RefusedError("no base64") from exc
    if base64.b64encode(found).decode() != text:
        raise RefusedError("base64 of another form")
    return found


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()

"""Headers of pax tar members (POSIX.1-2017, "pax Interchange Format"), written by hand: ``tarfile`` takes ten
times as long for one as it takes to hash a small object.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

BLOCK = 512
END = bytes(2 * BLOCK)
"""What an archive ends with."""
GENERATED = "_keys/"
"""Where members lie whose keys are not safe as file names."""
OLDER = "_versions/"
"""Where older versions lie, so that a pack that is unpacked shows the latest ones under their keys."""

_NAME_BYTES = 100
_LONGEST_NAME = 1000
_LONGEST_SEGMENT = 255
_VERSION = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_BEFORE_SIZE = b"0000644\0" + b"0000000\0" * 2
_AFTER_TYPE = bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
_SPACES = b" " * 8
_FIXED_SUM = sum(_BEFORE_SIZE) + sum(_AFTER_TYPE) + sum(_SPACES)
_FILE, _PAX = b"0", b"x"


def member_name(key: str, older: str = "") -> str:
    """Return the key where it is a safe relative path, for the comfort of people who untar; else a name made
    of its hash. Where it is not the latest one, ``older`` is the version's id. The index says which member holds
    which key.
    """
    if older:
        version = older if _VERSION.fullmatch(older) else hashlib.sha256(older.encode()).hexdigest()[:32]
        return f"{OLDER}{version}/{member_name(key)}"
    raw = key.encode()
    is_safe = (
        0 < len(raw) <= _LONGEST_NAME
        and not key.startswith((GENERATED, OLDER))
        and key.isprintable()
        and all(
            segment not in {b"", b".", b".."} and len(segment) <= _LONGEST_SEGMENT
            for segment in raw.split(b"/")
        )
    )
    return key if is_safe else GENERATED + hashlib.sha256(raw).hexdigest()


def header(
    name: str,
    size_bytes: int,
    modified_seconds: int,
    records: Mapping[str, str] | None = None,
    kind: bytes = _FILE,
) -> bytes:
    """Return the header blocks of a regular file: one, or more where there are pax records, as for its name."""
    raw, pax_member = name.encode(), b""
    if len(raw) > _NAME_BYTES or not raw.isascii() or records:
        more = (_record(keyword, value.encode()) for keyword, value in (records or {}).items())
        record = b"".join((_record("path", raw), *more))
        short = hashlib.sha256(raw).hexdigest()
        pax_header = header(f"pax/{short[:32]}", len(record), modified_seconds, kind=_PAX)
        raw, pax_member = short.encode(), pax_header + record + padding(len(record))
    numbers = b"%011o\0%011o\0" % (size_bytes, max(modified_seconds, 0))
    checksum = _FIXED_SUM + sum(raw) + sum(numbers) + kind[0]
    block = (raw.ljust(_NAME_BYTES, b"\0"), _BEFORE_SIZE, numbers, b"%06o\0 " % checksum, kind, _AFTER_TYPE)
    return pax_member + b"".join(block)


def padding(size_bytes: int) -> bytes:
    """Return the zero bytes that fill the last block of a member."""
    return bytes(-size_bytes % BLOCK)


def _record(keyword: str, value: bytes) -> bytes:
    """Return a pax record, whose length counts its own digits."""
    rest = b" %s=%s\n" % (keyword.encode(), value)
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return b"%d%s" % (length, rest)

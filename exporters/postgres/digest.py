"""The digest of rows: the sum of XXH3-128 over their lines, modulo 2**128. Order does not matter, count does.

A row's line is what ``COPY (canonical SELECT) TO STDOUT (FORMAT csv)`` prints for it, without the newline that ends it.
"""

from __future__ import annotations

from collections.abc import Sequence

from xxhash import xxh3_128_intdigest

MODULUS = 1 << 128


def digest_block(block: bytes, rows: int) -> int:
    """Return the digest of ``rows`` whole lines, each ended by a newline. Raises ``ValueError`` if there are not so many."""
    if block.count(b"\n") == rows:
        lines: Sequence[bytes] = block.split(b"\n")
    else:
        lines = _split_quoted(block)
    if lines[-1] or len(lines) - 1 != rows:
        raise ValueError(f"{len(lines) - 1} lines where {rows} rows were expected")
    return (sum(map(xxh3_128_intdigest, lines)) - xxh3_128_intdigest(b"")) % MODULUS


def _split_quoted(block: bytes) -> list[bytes]:
    """Split at the newlines that are not inside quotes; as ``bytes.split``, the last item is what follows the last one.

    Inside a value a quote is written twice, so a line is whole exactly when it has an even number of quotes.
    """
    lines: list[bytes] = []
    pending: list[bytes] = []
    for piece in block.split(b"\n"):
        odd = piece.count(b'"') % 2 == 1
        if not pending and not odd:
            lines.append(piece)
            continue
        closes = bool(pending) and odd
        pending.append(piece)
        if closes:
            lines.append(b"\n".join(pending))
            pending = []
    return lines + [b"\n".join(pending)] if pending else lines


def to_hex(digest: int) -> str:
    """Return the digest as 32 hex digits."""
    return f"{digest % MODULUS:032x}"

"""What a timestamp authority's token says."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from msgspec import Struct

Chain: TypeAlias = Literal["trusted", "self-signed", "unknown"]
"""Where the certificates of a token lead: to a root that the caller trusts, or to a self-signed one in the token. Where
the root is not known, nothing could be checked.
"""


class Stamp(Struct, frozen=True):
    """What a token says. ``hash`` is the SHA-256 that it is about, ``authority`` the subject of the certificate that
    signed it, ``nonce`` the number that the request had asked it to repeat.
    """

    hash: bytes
    moment: datetime
    authority: str
    nonce: int | None
    chain: Chain

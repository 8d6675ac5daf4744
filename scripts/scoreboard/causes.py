"""Why rounds failed: a file that people write, once they have looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec


class CauseKind(StrEnum):
    """What was wrong."""

    PRODUCT = "product"
    TEST = "test"
    LOAD = "load"
    UNKNOWN = "not established"


class Cause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why some rounds failed. ``rounds`` are named by time and commit; ``mended`` names a commit, and ``test`` a test
    that fails without it.
    """

    rounds: Sequence[str]
    kind: CauseKind
    why: str
    mended: str = ""
    test: str = ""

    @property
    def words(self) -> str:
        """The cause as the page says it."""
        mended = f" Mended by `{self.mended}`." if self.mended else ""
        return f"**{self.kind}**: {self.why}{mended}" + (f" Test: `{self.test}`." if self.test else "")


def read_causes(file: Path) -> Mapping[str, Cause]:
    """Return the cause of each round that the file names. Raises ``msgspec.ValidationError``."""
    tables = msgspec.toml.decode(file.read_bytes(), type=dict[str, list[Cause]])
    return {name: cause for cause in tables["cause"] for name in cause.rounds}

"""The record of a finished restore that left something out. It is kept with the destination, so that the same
command, and a comparison with the bundle, name it again: also from another machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from exporters.api import Loss
from exporters.row_digest import RowsDigest, to_hex

Item = TypeVar("Item")
Name = tuple[str, str]
"""Schema and name of a table."""


@dataclass(frozen=True, slots=True)
class FinishedRestore:
    """What a restore of ``only`` (``Selection.words``) left out. ``tables``: those whose rows are not the bundle's,
    with what the restore left in them; None for a table that could not be made. ``finished``: False for one that was
    interrupted.
    """

    only: str
    left_out: Sequence[str]
    notes: Sequence[str] = ()
    losses: Sequence[Loss] = ()
    tables: Mapping[Name, RowsDigest | None] = field(default_factory=dict)
    finished: bool = True

    def accepts(self, name: Name, digest: RowsDigest | None) -> bool:
        """Tell whether a table that differs from the bundle is still as the restore left it."""
        return name in self.tables and self.tables[name] == digest

    def for_successor(self) -> FinishedRestore:
        """Return what it means for a bundle that continues its own: tables that could not be made are tried again."""
        tables = {name: digest for name, digest in self.tables.items() if digest is not None}
        return replace(self, tables=tables)

    def encode(self) -> str:
        """Return it as JSON of ASCII characters only: a destination may be of any encoding."""
        tables = [
            [*name, None if digest is None else [digest.rows, to_hex(digest.digest)]]
            for name, digest in self.tables.items()
        ]
        losses = [[loss.item, loss.property, loss.reason] for loss in self.losses]
        return json.dumps(
            {"left_out": [*self.left_out], "notes": [*self.notes], "losses": losses, "tables": tables}
        )

    @staticmethod
    def decode(only: str, text: str) -> FinishedRestore:
        """Read what ``encode`` wrote. Raises ``ValueError``, ``KeyError``, ``TypeError``."""
        value = json.loads(text)
        tables = {
            (str(schema), str(name)): None
            if digest is None
            else RowsDigest(int(digest[0]), int(digest[1], 16))
            for schema, name, digest in value["tables"]
        }
        losses = [Loss(*map(str, loss)) for loss in value["losses"]]
        return FinishedRestore(
            only, list(map(str, value["left_out"])), list(map(str, value["notes"])), losses, tables
        )


def unique(*sequences: Iterable[Item]) -> list[Item]:
    """Return all sentences, or losses, in their order, each once."""
    return list(dict.fromkeys(item for sequence in sequences for item in sequence))

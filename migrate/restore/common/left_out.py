"""The record of a finished restore that left something out, as sentences. It lies at the destination. So the same
command, and a comparison with the bundle, report these sentences again, also from another machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Loss
from exporters.row_digest import RowsDigest, to_hex
from migrate.bundle.reader import BundleReader
from migrate.number_text import list_words

Item = TypeVar("Item")
Name = tuple[str, str]
"""Schema and name of a table."""
_NAMED = 1000
"""How many are named one by one."""


class FinishedRestore(Struct, frozen=True):
    """What a restore of ``only`` (``Selection.words``) left out. ``tables``: those whose rows are not the bundle's,
    with what the restore left in them; None for a table that could not be made. ``finished``: False for one that was
    interrupted. ``passwordless``: the accounts that it made, and that need a password before they can log in.
    """

    only: str
    left_out: Sequence[str]
    notes: Sequence[str] = ()
    losses: Sequence[Loss] = ()
    tables: Mapping[Name, RowsDigest | None] = field(default_factory=dict)
    finished: bool = True
    passwordless: Sequence[str] = ()

    @staticmethod
    def joined(records: Iterable[FinishedRestore]) -> FinishedRestore:
        """Return what several restores, or steps of one, left out and noted, each thing once."""
        records = list(records)
        return FinishedRestore(
            "",
            unique(*(record.left_out for record in records)),
            unique(*(record.notes for record in records)),
            unique(*(record.losses for record in records)),
            passwordless=unique(*(record.passwordless for record in records)),
        )

    def accepts(self, name: Name, digest: RowsDigest | None) -> bool:
        """Tell whether a table that differs from the bundle is still as the restore left it."""
        return name in self.tables and self.tables[name] == digest

    def for_successor(self) -> FinishedRestore:
        """Return the record for a bundle that continues this one: tables that could not be made are tried again."""
        tables = {name: digest for name, digest in self.tables.items() if digest is not None}
        return replace(self, tables=tables)

    def refused(self) -> Iterator[str]:
        """Yield what messages call the definitions that could not be made. A sentence about a loss is of one that is
        there; a name may have a colon in it.
        """
        lost = set(map(loss_sentence, self.losses))
        for sentence in self.left_out:
            if sentence not in lost:
                yield from (sentence[: match.start()] for match in re.finditer(": ", sentence))

    def with_left_out(self, sentences: Iterable[str]) -> FinishedRestore:
        """Return the record with those of the ``sentences`` that are about something it left out."""
        subjects = set(map(subject_of, self.left_out))
        return replace(self, left_out=[entry for entry in sentences if subject_of(entry) in subjects])

    def encode(self) -> str:
        """Return it as JSON of ASCII characters only: a destination may be of any encoding."""
        tables = [
            [*name, None if digest is None else [digest.rows, to_hex(digest.digest)]]
            for name, digest in self.tables.items()
        ]
        losses = [[loss.item, loss.property, loss.reason] for loss in self.losses]
        return json.dumps(
            {
                "left_out": [*self.left_out],
                "notes": [*self.notes],
                "losses": losses,
                "tables": tables,
                "passwordless": [*self.passwordless],
            }
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
            only,
            list(map(str, value["left_out"])),
            list(map(str, value["notes"])),
            losses,
            tables,
            passwordless=list(map(str, value.get("passwordless", ()))),
        )


def loss_sentence(loss: Loss) -> str:
    """Return the sentence about a loss of something that is there; see ``FinishedRestore.refused``."""
    return f"{loss.item}: {loss.reason}"


def subject_of(sentence: str) -> str:
    """Return the subject of a sentence about something left out: ``INDEX public.i`` of ``INDEX public.i: refused``."""
    return sentence.partition(": ")[0]


def now_there(before: Iterable[str], still: Iterable[str]) -> list[str]:
    """Return the note about what was left out ``before`` and exists now; none where there is no such thing."""
    subjects = set(map(subject_of, still))
    names = [subject for entry in before if (subject := subject_of(entry)) not in subjects]
    return [f"an earlier restore left it out, and now it is there: {list_words(names)}"] if names else []


def unique(*sequences: Iterable[Item]) -> list[Item]:
    """Return all sentences, or losses, in their order, each once."""
    return list(dict.fromkeys(item for sequence in sequences for item in sequence))


def lacking_of(reader: BundleReader, source: str) -> list[str]:
    """Return a sentence for each item that the bundle lacks; where none is named, for each reason why."""
    gaps = reader.failed(source)
    named = [f"the bundle itself lacks {gap.item}: {gap.reason}" for gap in islice(gaps, _NAMED)]
    if not named and not reader.info.source(source).complete:
        reconciliations = (entry for entry in reader.reconciliation() if entry.name == source)
        return [
            f"the bundle is incomplete: {reason}" for entry in reconciliations for reason in entry.reasons
        ]
    more = sum(1 for _ in gaps)
    return [*named, f"the bundle itself lacks {more:,} more: data/gaps.parquet names them"] if more else named

"""Samples of a bundle, drawn after its root was signed: what share of it may be lost, and how sure one is of that.

If a share ``loss`` of all items were damaged, ``n`` samples would all be whole with a probability of (1 - loss)ⁿ. So
``n = ⌈ln(1 - confidence) / ln(1 - loss)⌉`` whole samples show, with that confidence, that less is damaged. The seed is
chosen when the audit begins, so nobody can have prepared for it; it is in the result, and anyone can draw the same
again.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from msgspec import Struct

from exporters.structs import as_dict
from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.bundle.tag_files import CHUNK_BYTES
from migrate.custody import documents
from migrate.custody.documents import Document
from migrate.custody.log import custody_log
from migrate.custody.log.entry import CustodyEvent
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import Signer
from migrate.custody.tree import bundle_tree, leaves
from migrate.errors import DamageError, GoneError, UsageError
from migrate.number_text import things
from migrate.runtime.progress import Progress
from migrate.storage.api import Store

_COLUMNS = ["key", "sha256", "disposition", "pack", "offset", "length", "large"]
_SHOWN = 100


class Question(Struct, frozen=True):
    """How sure one wants to be that a smaller share than ``loss`` is lost. Both between 0 and 1."""

    confidence: float
    loss: float

    @property
    def samples(self) -> int:
        """How many whole samples answer it. Raises ``UsageError`` where the numbers make no sense."""
        are_shares = 0 < self.confidence < 1 and 0 < self.loss < 1
        samples = math.log1p(-self.confidence) / math.log1p(-self.loss) if are_shares else math.inf
        if samples == math.inf:  # also for a loss that no bundle is large enough for
            raise UsageError(
                "confidence and loss are shares between 0 and 1", next_step="--confidence 0.99 --loss 0.001"
            )
        return math.ceil(samples)


class Audited(Struct, frozen=True):
    """What was drawn and found. ``known`` samples were of items that the bundle itself says are not in it."""

    document: Document
    known: int
    findings: Sequence[Finding]


class _Located(Struct, frozen=True):
    """Where the bytes of an item are: ``length`` from ``offset`` of a file, None: all of it."""

    name: str
    file: str
    offset: int
    length: int | None
    sha256: str


def draw(seed: bytes, root: str, items: int, samples: int) -> list[int]:
    """Return the numbers of the drawn items, in the order of the draw, some perhaps twice; all where there are no more
    items than samples.
    """
    if samples >= items:
        return list(range(items))
    start = hashlib.sha256(seed + bytes.fromhex(root))
    drawn = []
    for number in range(samples):
        hasher = start.copy()
        hasher.update(number.to_bytes(8, "big"))
        drawn.append(int.from_bytes(hasher.digest(), "big") % items)
    return drawn


class Seed(Struct, frozen=True):
    """What the samples are drawn by. ``named``: somebody chose it, so it may have been known before the seal."""

    value: bytes
    named: bool = False


def audit(
    store: Store, question: Question, signer: Signer, trust: Trust | None, *, seed: Seed, workers: int,
    progress: Progress,
) -> Audited:  # fmt: skip
    """Draw, check every drawn item's bytes at the location, sign the result and write it into the log.

    The list of items itself is checked first, against the signed root; with ``trust`` a key of its list must have
    signed that. Raises ``UsageError`` where there is no tree.
    """
    tree, signed = bundle_tree.read(store)
    findings = list(bundle_tree.check_signed(store, trust, deep=True).findings)
    drawn = draw(seed.value, tree.root, tree.size, question.samples)
    numbers = sorted(set(drawn))
    located, wrong = _examine(store, numbers, workers, progress)
    findings += wrong
    if len(located) != len(numbers) and not findings:
        sentence = "has other items than the bundle"
        findings.append(Finding(layout.TREE, sentence, str(len(numbers)), str(len(located))))
    counts = {
        "items": tree.size,
        "samples": len(drawn),
        "distinct": len(numbers),
        "known": located.count(None),
    }
    value = {
        "bundle": tree.bundle,
        "root": tree.root,
        "location": store.location,
        "tree": signed.hash.hex(),
        "seed": seed.value.hex(),
        "seed_named": seed.named,
        "confidence": question.confidence,
        "loss": question.loss,
        **counts,
        "findings_total": len(findings),
        "findings": [as_dict(finding) for finding in findings[:_SHOWN]],
    }
    document = documents.make("audit", _about(question, counts, findings, named=seed.named), value)
    documents.keep(store, document, [signer])
    details = {**document.named, "samples": len(drawn), "findings": len(findings)}
    custody_log.append(
        store, signer, lambda _: [CustodyEvent("audited", tree.bundle, tree.root, store.location, details)]
    )
    return Audited(document, counts["known"], findings)


def _examine(
    store: Store, numbers: Sequence[int], workers: int, progress: Progress
) -> tuple[list[_Located | None], list[Finding]]:
    """Find the sampled items and hash each; return them, None for what the bundle says it has not, and what is
    wrong.
    """
    progress.begin("audit", items=len(numbers), size_bytes=0)
    located: list[_Located | None] = []
    findings: list[Finding] = []
    try:
        located += _locate(BundleReader(store), numbers)
    except DamageError as exc:
        findings.append(Finding(exc.key, "cannot be read", exc.expected, exc.found))

    def look(item: _Located) -> Finding | None:
        finding = _check(store, item)
        progress.advance(items=1)
        return finding

    located_items = [item for item in located if item is not None]
    with ThreadPoolExecutor(workers, thread_name_prefix="moveout-audit") as pool:
        findings += [item for item in pool.map(look, located_items) if item is not None]
    progress.end()
    return located, findings


def _about(question: Question, counts: Mapping[str, int], findings: Sequence[Finding], *, named: bool) -> str:
    drawn = f"{things(counts['samples'], 'sample')} of {things(counts['items'], 'item')}"
    if findings:
        counted = "1 FINDING" if len(findings) == 1 else f"{len(findings):,} FINDINGS"
        return f"AUDIT WITH {counted} in {drawn}"
    missing = (
        f"; {counts['known']} of them the bundle itself says it does not have" if counts["known"] else ""
    )
    whole = "each that the bundle has is whole" if counts["known"] else "each is whole"
    if counts["samples"] >= counts["items"]:
        return f"Audit of all {things(counts['items'], 'item')}: {whole}{missing}"
    if named:
        return (
            f"Audit of {drawn} by a seed that was named, each whole{missing}: it shows nothing of the others unless the"
            " root was signed before anybody knew the seed"
        )
    return (
        f"Audit of {drawn}, drawn after the root was signed, each whole{missing}: with a confidence of"
        f" {question.confidence:g} less than {question.loss:g} of them is damaged"
    )


def _locate(reader: BundleReader, numbers: Sequence[int]) -> Iterator[_Located | None]:
    """Yield where the sampled items are, by their numbers in the tree; None for what the bundle says it has not."""
    first, catalog = 0, reader.catalog()
    files = leaves.part_hashes(reader, catalog)
    for source in reader.info.sources:
        if any(row.source == source.name and row.kind == "bucket" for row in catalog):
            for batch in reader.index(source.name, columns=_COLUMNS):
                yield from _rows(batch, source.name, _between(numbers, first, batch.num_rows))
                first += batch.num_rows
        for row in catalog:
            if row.source == source.name and row.has_rows:
                parts = leaves.parts(row)
                for part_number in _between(numbers, first, len(parts)):
                    key = parts[part_number].key
                    yield _Located(key, key, 0, None, files.get(key, ""))
                first += len(parts)


def _between(numbers: Sequence[int], first: int, count: int) -> list[int]:
    return [
        number - first
        for number in numbers[bisect_left(numbers, first) : bisect_left(numbers, first + count)]
    ]


def _rows(batch: pa.RecordBatch, source: str, chosen: Sequence[int]) -> Iterator[_Located | None]:
    for row in batch.take(pa.array(chosen, pa.int64())).to_pylist() if chosen else ():
        yield _located(row, source)


def _located(row: dict[str, Any], source: str) -> _Located | None:
    if row["disposition"] != "exported":
        return None
    name = layout.source_file(source, row["pack"] or row["large"] or "")
    length = None if row["pack"] is None else row["length"]
    return _Located(f"{row['key']!r} in {name}", name, row["offset"] or 0, length, row["sha256"] or "")


def _check(store: Store, item: _Located) -> Finding | None:
    try:
        sha256 = _hash(store, item)
    except (GoneError, UsageError) as exc:
        return Finding(item.name, f"cannot be read: {exc}")
    except DamageError as exc:
        return Finding(item.name, "cannot be read", exc.expected, exc.found)
    return None if sha256 == item.sha256 else Finding(item.name, "has other bytes", item.sha256, sha256)


def _hash(store: Store, item: _Located) -> str:
    digest, offset = hashlib.sha256(), item.offset
    end = None if item.length is None else item.offset + item.length
    while end is None or offset < end:
        piece = store.read(item.file, offset, CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - offset))
        if not piece:
            break
        digest.update(piece)
        offset += len(piece)
    return digest.hexdigest()

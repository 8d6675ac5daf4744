"""One unit of small objects: read, hashed, put into a tar in the order of the listing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, BinaryIO

import pyarrow as pa
from msgspec import Struct, field
from msgspec.structs import replace

from exporters import arrow_functions as pc
from exporters.api import DoneUnit, Gap, Loss, Outcome, Sink, Unit, Workspace
from exporters.bucket_api import Bucket, Fetched, ObjectSummary
from exporters.errors import SourceDamagedError, SourceError
from exporters.objects import acls, changed_objects, index_rows, large_object, pax_headers
from exporters.objects.index_rows import Content
from exporters.objects.listing.inventory import SMALL_BYTES, Inventory
from exporters.objects.outage_detection import OutageDetector
from exporters.objects.source_checksums import md5_of, promises_md5, read_again
from exporters.objects.unit_plan import large_id
from exporters.selection import Selection

WINDOW_BYTES = 8 * 2**20
"""Bodies that one pack holds in memory."""
_READ_AGAIN = 3
_WRITE_BYTES = 2**20
_ROWS_AT_ONCE = 1000
_REPORTED_ITEMS = 100
"""After this many objects, or ``_WRITE_BYTES``, the sink gets to see how far the pack is."""


def pack_name(unit: Unit) -> str:
    """Return the name of a pack's file, relative to ``data/<source>/``."""
    return f"packs/pack-{unit.spec['number']:06d}.tar"


def rows_file(done: DoneUnit) -> str:
    """Return the name of the workspace file that holds the index rows of a pack."""
    return str(done.outcome.facts.get("rows", f"rows/{done.unit.id}.parquet"))


NumberedObject = tuple[int, ObjectSummary]
"""A row of a shard of the inventory, and the object in it."""


class Packing(Struct, frozen=True):
    """Makes packs. Raises ``SourceError`` for errors that are not those of a single object."""

    bucket: Bucket
    inventory: Inventory
    sink: Sink
    workspace: Workspace
    outage: OutageDetector

    def export(self, unit: Unit) -> Outcome:
        """Write a pack, and its index rows to the workspace."""
        pack = self._write(self._listed(unit), pack_name(unit))
        return self._outcome(unit, pack, pack.table(), Outcome(0, 0))

    def mend(self, done: DoneUnit) -> Outcome:
        """Write another pack with what failed in one, and the index rows of both."""
        data = self.workspace.read(rows_file(done))
        if data is None:
            raise SourceError(f"the index rows of {done.unit.id} are not there any more")
        before = index_rows.from_state(data, rows_file(done))
        has_failed = pc.equal(before["disposition"], "failed")
        failed_rows = set(before.filter(has_failed)["position"].to_pylist())
        stem = pack_name(done.unit).removesuffix(".tar")
        listed = [pair for pair in self._listed(done.unit) if pair[0] in failed_rows]
        pack = self._write(listed, f"{stem}-{len(done.files)}.tar")
        table = pa.concat_tables([before.filter(pc.invert(has_failed)), pack.table()])
        earlier = replace(
            done.outcome, gaps=[gap for gap in done.outcome.gaps if gap.disposition != "failed"]
        )
        return self._outcome(done.unit, pack, table, earlier)

    def _listed(self, unit: Unit) -> list[NumberedObject]:
        spec = unit.spec
        listed = self.inventory.included(spec["shard"], spec["start"], spec["rows"])
        return [(row, summary) for row, summary in listed if summary.size_bytes <= SMALL_BYTES]

    def _write(self, listed: Sequence[NumberedObject], name: str) -> _Pack:
        ordered, versions = self.inventory.totals.ordered, self.inventory.totals.versions
        markers = [pair for pair in listed if pair[1].is_delete_marker] if versions else []
        small = [pair for pair in listed if not pair[1].is_delete_marker] if markers else listed
        fetched = self.bucket.fetch((summary for _, summary in small), window_bytes=WINDOW_BYTES)
        with self.sink.create(name, size_bytes=sum(summary.size_bytes for _, summary in small)) as file:
            pack = _Pack(self.bucket, name, file, self.sink, self.inventory.selection, self.outage)
            for (row, _), response in zip(small, self.outage.watch(fetched), strict=True):
                pack.add(row, response)
            pack.end()
        for row, summary in markers:
            pack.add_marker(row, summary)
        pack.add_grown()
        pack.name_lost(ordered=ordered)
        return pack

    def _outcome(self, unit: Unit, pack: _Pack, table: pa.Table, earlier: Outcome) -> Outcome:
        """Return a unit's outcome, added to the earlier one."""
        index_bytes = index_rows.to_bytes(table)
        # Named by its content: rows that are made once more do not replace those that may have to stay.
        name = f"rows/{unit.id}.{hashlib.sha256(index_bytes).hexdigest()[:16]}.parquet"
        self.workspace.write(name, index_bytes)
        reread = int(earlier.facts.get("reread", 0)) + pack.reread
        return Outcome(
            items=earlier.items + pack.exported,
            size_bytes=earlier.size_bytes + pack.size_bytes,
            losses=[*earlier.losses, *pack.losses],
            gaps=[*earlier.gaps, *pack.gaps],
            facts={"inventory": self.inventory.totals.id, "rows": name}
            | ({"reread": reread} if reread else {}),
        )


class _Pack(Struct):
    """A tar being written."""

    bucket: Bucket
    name: str
    file: BinaryIO
    sink: Sink
    selection: Selection
    outage: OutageDetector
    rows: list[dict[str, Any]] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)
    lost: list[tuple[int, ObjectSummary, SourceError]] = field(default_factory=list)
    grown: list[tuple[int, ObjectSummary]] = field(default_factory=list)
    exported: int = 0
    reread: int = 0
    size_bytes: int = 0
    _reported_items: int = 0
    _reported_bytes: int = 0
    _pieces: list[bytes] = field(default_factory=list)
    _held: int = 0
    _offset: int = 0

    def add(self, row: int, fetched: Fetched) -> None:
        """Write an object, or note why it is not in the pack."""
        listed = fetched.summary
        if fetched.error is not None:
            fetched = self._read_again(fetched)
        summary = fetched.summary
        if fetched.error is not None:
            self.lost.append((row, listed, fetched.error))
            return
        if self.selection.tags and (reason := self.selection.excludes_tags(fetched.tags)) is not None:
            self._exclude(row, summary, reason)
            return
        self.reread += summary.etag != listed.etag
        if summary.size_bytes > SMALL_BYTES:
            self.grown.append((row, summary))
            return
        fetched, md5 = self._with_md5(fetched)
        if fetched.error is not None:
            self.lost.append((row, listed, fetched.error))
            return
        body, crc = fetched.body, fetched.crc64nvme
        older = "" if summary.is_latest else summary.version_id
        header = pax_headers.header(
            pax_headers.member_name(summary.key, older), len(body), int(summary.modified.timestamp())
        )
        content = Content(
            sha256=hashlib.sha256(body).hexdigest(),
            md5=md5,
            crc64nvme=self.bucket.crc64nvme(body) if crc is None else crc,
            pack=self.name,
            offset=self._offset + len(header),
            parts=self.bucket.parts(summary) if "-" in summary.etag else (),
        )
        self._write(header, body)
        self._note(row, fetched, content)

    def _with_md5(self, fetched: Fetched) -> tuple[Fetched, str | None]:
        """Return an object with the MD5 of its body, read again where its ETag is another one. None where the server
        keeps a CRC64NVME, which was compared: an MD5 is a quarter of the time that an object takes.
        """
        if fetched.crc64nvme is not None:
            return fetched, None
        md5, etag = md5_of(fetched.body), fetched.summary.etag
        if md5 != etag and promises_md5(fetched):
            if len(self.unlike) < _READ_AGAIN:
                fetched = read_again(self.bucket, fetched)
                if fetched.error is not None:
                    return fetched, None
                md5 = md5_of(fetched.body)
            if md5 != etag:
                self.unlike.append(fetched.summary.key)
        return fetched, md5

    def _read_again(self, fetched: Fetched) -> Fetched:
        """Read an object again that came damaged, or is not what was listed."""
        if isinstance(fetched.error, SourceDamagedError):
            fetched = read_again(self.bucket, fetched)
        if changed_objects.has_changed(fetched.error):
            fetched = changed_objects.read_current(self.bucket, fetched, SMALL_BYTES)
        return fetched

    def add_marker(self, row: int, summary: ObjectSummary) -> None:
        """Note a delete marker."""
        self.rows.append(index_rows.marker(self.bucket.name, row, summary))
        self.exported += 1

    def add_grown(self) -> None:
        """Write objects that have grown since they were listed, each as a file of its own."""
        for row, summary in self.grown:
            name = f"large/{large_id(self.bucket.name, summary.key, summary.version_id)}"
            read = large_object.write(self.bucket, summary, name, self.sink, self.outage)
            if read.error is None:
                self._note(row, read.fetched, read.content)
                self.losses.extend(read.doubts)
            else:
                self.lost.append((row, summary, read.error))

    def name_lost(self, *, ordered: bool) -> None:
        """Add a gap and an index row for each object that could not be read."""
        errors = [(summary, error) for _, summary, error in self.lost]
        gaps = changed_objects.gaps(self.bucket, errors, ordered=ordered)
        for (row, summary, _), gap in zip(self.lost, gaps, strict=True):
            self.gaps.append(gap)
            self.rows.append(index_rows.missing(self.bucket.name, row, summary, gap))

    def _exclude(self, row: int, summary: ObjectSummary, reason: str) -> None:
        gap = Gap(summary.name, "excluded", reason)
        self.gaps.append(gap)
        self.rows.append(index_rows.missing(self.bucket.name, row, summary, gap))

    def _note(self, row: int, fetched: Fetched, content: Content) -> None:
        self.rows.append(index_rows.exported(self.bucket.name, row, fetched, content))
        if len(self.rows) >= _ROWS_AT_ONCE:
            self._pack_rows()
        self.losses.extend(index_rows.losses(fetched))
        self.exported += 1
        self.size_bytes += fetched.summary.size_bytes
        if self.exported - self._reported_items >= _REPORTED_ITEMS:
            self._report()

    def table(self) -> pa.Table:
        """Return the index rows."""
        self._pack_rows()
        return pa.concat_tables(self.tables)

    def _pack_rows(self) -> None:
        """Turn rows into columns, which take a tenth of the memory."""
        self.losses.extend(acls.fill(self.bucket, self.rows, self.outage))
        self.tables.append(index_rows.to_table(self.rows))
        self.rows = []

    def end(self) -> None:
        if self.unlike:
            count = len(self.unlike)
            whose = f"of {count:,} objects do not have the MD5 that their ETags look"
            if count == 1:
                whose = "of 1 object do not have the MD5 that its ETag looks"
            reason = f"the contents {whose} like"
            self.losses.append(Loss(self.unlike[0], "ETag", reason))
        self._write(pax_headers.END)
        self._flush()

    def _write(self, *pieces: bytes) -> None:
        """Write pieces, the last of which is filled up to a whole block."""
        size = sum(map(len, pieces))
        padding = bytes(-size % pax_headers.BLOCK)
        size += len(padding)
        self._pieces += (*pieces, padding)
        self._offset += size
        self._held += size
        if self._held >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        self.file.write(b"".join(self._pieces))
        self._pieces, self._held = [], 0
        self._report()

    def _report(self) -> None:
        """Report to the sink what has been read since the last report."""
        self.sink.advance(
            items=self.exported - self._reported_items, size_bytes=self.size_bytes - self._reported_bytes
        )
        self._reported_items, self._reported_bytes = self.exported, self.size_bytes

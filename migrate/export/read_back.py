"""A unit's rows, read back from the files that were just written, must be those that the source sent.

The digest of the source's stream is compared with that of the Parquet files at the location, rendered back to text,
while the source is still there to be asked again.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from exporters.engine import part_reader_of
from exporters.errors import SourceError
from exporters.row_digest import RowsDigest, to_hex
from migrate.bundle import layout
from migrate.bundle.commit_records import CommitRecord
from migrate.engines import registry
from migrate.storage.api import Store
from migrate.storage.file_reader import RandomAccess

PROVED = "proved"
"""The fact in a commit record that its rows were read back."""


def prove(store: Store, url: str, record: CommitRecord) -> CommitRecord:
    """Return the record of a unit of the source at ``url`` with the fact added; as it is where the unit has no rows of
    a table, or was read back before. Raises ``SourceError`` where a value did not survive.
    """
    if record.outcome.digest is None or record.outcome.facts.get(PROVED) is True:
        return record
    engine = registry.find(url)
    if engine is None or not engine.part_reader:
        return record
    reader = part_reader_of(engine)
    rows_digest = RowsDigest()
    parts: list[dict[str, Any]] = list(record.outcome.facts.get("parts", ()))
    try:
        for part in parts:
            with RandomAccess(store, layout.source_file(record.source, part["name"])) as file:
                rows_digest += reader.digest_part(file, part["rows"])
    except reader.read_errors as exc:
        raise SourceError(
            f"unit {record.unit.id} of {record.source} cannot be read back: {exc}",
            next_step="run the same command again; if it stays so, please report it",
        ) from exc
    expected = RowsDigest(record.outcome.items, record.outcome.digest or 0)
    if rows_digest != expected:
        raise SourceError(
            f"unit {record.unit.id} of {record.source}: {rows_digest.rows} rows with digest"
            f" {to_hex(rows_digest.digest)} come out of its Parquet files, {expected.rows} with"
            f" {to_hex(expected.digest)} were sent",
            next_step="a value did not survive; please report the table's definition",
        )
    outcome = replace(record.outcome, facts={**record.outcome.facts, PROVED: True})
    return replace(record, outcome=outcome)

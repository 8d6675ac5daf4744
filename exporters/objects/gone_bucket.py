"""The summary of a bucket that is gone before it was read to its end: from its inventory, and from the settings that
were noted when it had been listed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any, cast

import msgspec
from msgspec import Struct

from exporters.api import OUTLINE, DoneUnit, Sink, SourceSummary, Workspace
from exporters.bucket_api import Bucket, ObjectSummary
from exporters.errors import SourceError, reading_state
from exporters.objects import unit_plan
from exporters.objects.listing import inventory
from exporters.objects.listing.second_listing import Relisting
from exporters.objects.source_summary import Closing, FinishedUnits
from exporters.structs import as_dict


class NotedBucket(Struct, frozen=True):
    """What the summary asks of a ``Bucket``. ``settings``: None where they have not been read."""

    name: str
    prefix: str
    server: str
    settings: dict[str, Any] | None = None
    are_tags_readable: bool = True

    def configuration(self) -> dict[str, Any]:
        """See ``Bucket.configuration``."""
        return {"failing": ["settings"]} if self.settings is None else self.settings

    def tags_readable(self, samples: Sequence[ObjectSummary]) -> bool:
        """See ``Bucket.tags_readable``."""
        del samples
        return self.are_tags_readable

    def note(self, workspace: Workspace) -> None:
        """Write it."""
        workspace.write(OUTLINE, json.dumps(as_dict(self), default=str).encode())


def summary_of_gone(
    workspace: Workspace, done: Iterable[DoneUnit], sink: Sink, error: SourceError
) -> SourceSummary | None:
    """See ``exporters.engine.SummaryOfGone``."""
    data, listed = workspace.read(OUTLINE), inventory.finished(workspace)
    if data is None or listed is None:
        return None
    with reading_state(OUTLINE):
        bucket = cast("Bucket", msgspec.convert(json.loads(data), NotedBucket))
    own_units = (unit for unit in done if unit.outcome.facts.get("inventory") == listed.totals.id)
    planned = unit_plan.cut(listed, bucket.name)
    relisting = Relisting(bucket, listed.totals, refusal=error)
    with closing(FinishedUnits(own_units)) as finished:
        return Closing(bucket, listed, workspace, finished, relisting).run(planned, sink)

"""What work costs: a linear model for each stage and kind of source, fitted to recorded moves.

``reference_runs.json`` has the coefficients and the moves. ``python -m scripts.bench.forecast`` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from exporters.rate_sampling import fit
from migrate.plan.stage_work import OTHER_KIND, RunRecord, StageRecord, StageWork

REFERENCE_FILE = "reference_runs.json"

Costs = Mapping[str, Mapping[str, Sequence[float]]]
"""Coefficients by stage and kind: seconds for the start, a table, an item and a byte. Where the work was sampled, those
for the start and a table, on top of ``StageWork.sampled_seconds``; the stage is then called ``export, sampled``.
"""
MIN_SECONDS = 0.05
LEAST_OVERHEAD, MOST_OVERHEAD = 0.03, 0.9
"""What precedes the first item and follows the last one is never nothing, and never all."""
MIN_RECORDS = 4
"""Fewer records of a kind say nothing about four coefficients."""


class Reference(Struct, frozen=True):
    """What moveout comes with: coefficients, and the moves they were fitted to."""

    costs: Costs
    runs: Sequence[RunRecord]

    def model_seconds(self, work: StageWork) -> float:
        """Return what the model says of some work, uncorrected: a forecast multiplies it by what moves took in
        relation to it.
        """
        by_model = _dot(self._coefficients(work.stage, work.kind), _features(work))
        if work.sampled_seconds is None:
            return max(MIN_SECONDS, by_model)
        if f"{work.stage}, sampled" in self.costs:
            overhead = _dot(self._coefficients(f"{work.stage}, sampled", work.kind), _features(work))
            return max(MIN_SECONDS, overhead + work.sampled_seconds)
        return max(MIN_SECONDS, by_model, work.sampled_seconds)

    def overhead_share(self, work: StageWork) -> float:
        """Return the share of the time that goes with no item or byte: the start and the end of the work."""
        empty = replace(
            work, items=0, size_bytes=0, sampled_seconds=None if work.sampled_seconds is None else 0.0
        )
        share = self.model_seconds(empty) / self.model_seconds(work)
        return min(MOST_OVERHEAD, max(LEAST_OVERHEAD, share))

    def _coefficients(self, stage: str, kind: str) -> Sequence[float]:
        by_kind = self.costs.get(stage, {})
        return by_kind.get(kind) or by_kind.get(OTHER_KIND) or ()


def fit_costs(runs: Sequence[RunRecord]) -> dict[str, dict[str, list[float]]]:
    """Return coefficients for each stage and kind of which there are enough records, and for other kinds those that are
    fitted to all of them.
    """
    groups: dict[tuple[str, str], list[StageRecord]] = {}
    for record in (record for run in runs for record in run):
        work = record.work
        names: list[str] = [work.stage]
        if work.stage in _SAMPLED_STAGES and work.sampled_seconds is not None:
            names.append(f"{work.stage}, sampled")
        for name in names:
            groups.setdefault((name, work.kind), []).append(record)
            groups.setdefault((name, OTHER_KIND), []).append(record)
    costs: dict[str, dict[str, list[float]]] = {}
    for (model_name, kind), records in sorted(groups.items()):
        if kind != OTHER_KIND and len(records) < MIN_RECORDS:
            continue
        is_sampled = model_name.endswith("sampled")
        rows = [_features(record.work)[: 2 if is_sampled else None] for record in records]
        sampled = [(record.work.sampled_seconds or 0.0) if is_sampled else 0.0 for record in records]
        costs.setdefault(model_name, {})[kind] = fit(rows, [record.seconds for record in records], sampled)
    return costs


_SAMPLED_STAGES = ("export", "transfer")
"""The stages whose samples replace the model; elsewhere a sample is the least that the stage takes."""


def _features(work: StageWork) -> tuple[float, ...]:
    return 1.0, work.tables, work.items, work.size_bytes


def _dot(coefficients: Sequence[float], features: Sequence[float]) -> float:
    return sum(left * right for left, right in zip(coefficients, features, strict=False))


@cache
def reference() -> Reference:
    """Return what moveout comes with."""
    text = files("migrate.plan").joinpath(REFERENCE_FILE).read_text(encoding="utf-8")
    return decode(json.loads(text))


def decode(value: Mapping[str, Any]) -> Reference:
    """Return the content of a reference file."""
    runs = [tuple(map(StageRecord.from_json, run)) for run in value["runs"]]
    return Reference(value["costs"], runs)

"""The newest values of CloudWatch's metrics: the sizes that no listing says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from migrate.discover.aws.connection import AwsConnection
from migrate.discover.aws.services import METRIC_DATA, METRICS, Metric

_PERIOD = timedelta(days=1)
"""S3 reports its sizes once a day (S3's guide, "Metrics and dimensions")."""
_LOOK_BACK = timedelta(days=3)
_QUERIES = 500
"""As many metrics as one GetMetricData takes (CloudWatch API reference)."""
_STORAGE_TYPE = "StorageType"


def newest_values(connection: AwsConnection, metric: Metric, region: str) -> dict[str, int]:
    """Return the newest value of a metric by the name of the thing; several storage types are added up.

    Raises ``CallFailedError``.
    """
    values: dict[str, int] = defaultdict(int)
    listed = connection.items(METRICS, region, Namespace=metric.namespace, MetricName=metric.name)
    of_things = list(_of_things(listed, metric.dimension))
    now = datetime.now(UTC)
    for first in range(0, len(of_things), _QUERIES):
        some = of_things[first : first + _QUERIES]
        results = connection.items(
            METRIC_DATA,
            region,
            MetricDataQueries=[_query(number, metric) for number, (_, metric) in enumerate(some)],
            StartTime=now - _LOOK_BACK,
            EndTime=now,
            ScanBy="TimestampDescending",
        )
        newest: dict[str, float] = {}
        for result in results:
            if result["Values"]:
                newest.setdefault(result["Id"], result["Values"][0])
        for number, (name, _) in enumerate(some):
            if (value := newest.get(f"m{number}")) is not None:
                values[name] += int(value)
    return dict(values)


def _of_things(listed: Sequence[Any], dimension: str) -> Iterator[tuple[str, Any]]:
    """Yield the metrics of single things, with the things' names: others are of groups of things."""
    for metric in listed:
        dimensions = {item["Name"]: item["Value"] for item in metric.get("Dimensions", [])}
        if dimension in dimensions and set(dimensions) <= {dimension, _STORAGE_TYPE}:
            yield dimensions[dimension], metric


def _query(number: int, metric: Any) -> dict[str, Any]:
    return {
        "Id": f"m{number}",
        "MetricStat": {"Metric": metric, "Period": int(_PERIOD.total_seconds()), "Stat": "Average"},
    }

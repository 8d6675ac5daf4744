"""What a destination bucket will not take, found by trying; see ``destination_checks.Check``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from exporters.objects.bucket_survey import CLASS, MARKERS, OBJECT_LOCK, OLDER
from migrate.errors import GoneError
from migrate.plan.destination_checks import DestinationPlan
from migrate.plan.survey import SourcePlan
from migrate.storage.s3.capability_probe import Capabilities, probe
from migrate.storage.s3.destination_bucket import open_destination_bucket


def check_bucket(
    source: SourcePlan, url: str, *, secrets: Mapping[str, str] | None = None
) -> DestinationPlan:
    """Try the destination out with what the source has (it is left as it was). Raises ``MoveoutError``."""
    features = source.survey.features
    try:
        destination = open_destination_bucket(url, secrets=secrets)
    except GoneError as exc:
        suffix = ", with object lock" if OBJECT_LOCK in features else ""
        return DestinationPlan(source.name, url, (f"{exc}: create it{suffix} before the restore",))
    kinds = [
        kind for kind in features if kind not in {OBJECT_LOCK, OLDER, MARKERS} and not kind.startswith(CLASS)
    ]
    classes = [kind.removeprefix(CLASS) for kind in features if kind.startswith(CLASS)]
    capabilities = probe(destination, keys=kinds, classes=classes)
    return DestinationPlan(source.name, destination.url, tuple(_warnings(features, capabilities)))


def _warnings(features: Mapping[str, int], capabilities: Capabilities) -> Iterator[str]:
    if not capabilities.probed:
        yield f"the destination was not tried out: {capabilities.why}"
    for kind, refusal in capabilities.refused_keys.items():
        if kind in features:
            yield f"{features[kind]} keys have {kind}: the destination {refusal}; they will not be restored"
        else:
            yield f"keys with {kind} will not be restored: the destination {refusal}"
    for name, refusal in capabilities.refused_classes.items():
        yield f"{features[CLASS + name]} objects have the storage class {name}: the destination {refusal}"
    if OBJECT_LOCK in features and not capabilities.object_lock:
        yield "the source locks objects, the destination bucket has no object lock; create it anew with object lock"

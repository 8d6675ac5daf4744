"""The survey of both buckets before the first object is copied: what the destination can store, and what a sync cannot
copy at all. It holds for a day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice

from msgspec import Struct

from exporters.api import Loss
from exporters.bucket_api import STANDARD_HEADERS, ObjectSummary
from exporters.objects.listing.hidden_objects import BENEATH, lists_no_keys_beneath
from exporters.objects.server_quirks import Trait, has
from migrate.bundle import canonical_json
from migrate.errors import DamageError, GoneError
from migrate.restore.objects.destination_terms import Terms
from migrate.storage.api import MultipartStore
from migrate.storage.s3.capability_probe import Capabilities, Later, ProbePlan, probe
from migrate.storage.s3.metadata.acl import CANNED
from migrate.sync.plan import Sides

CAPABILITIES = "capabilities.json"
_TAG_SAMPLES = 3
_HOLDS = timedelta(days=1)


class CapabilitySurvey(Struct, frozen=True):
    """``capabilities`` of the destination, whether it ``encrypts`` by its own default, and what is lost of the
    bucket.
    """

    capabilities: Capabilities
    encrypts: bool
    losses: Sequence[Loss]

    @property
    def terms(self) -> Terms:
        """The terms on which objects are written at the destination."""
        return Terms.of(self.capabilities, encrypts=self.encrypts)


def survey(
    sides: Sides,
    store: MultipartStore,
    keys: frozenset[str],
    classes: frozenset[str],
    samples: Sequence[ObjectSummary],
    later: Later,
) -> CapabilitySurvey:
    """Return the survey of the last day, if that has tried these ``keys`` and ``classes``; else make one, and record
    it, unless the destination answered with errors of its own, which pass. ``samples`` are a few objects of the source;
    without any it is listed. ``later`` removes what was written for the survey. Raises
    ``UnreachableError``, ``NotAllowedError``, ``SourceError``.
    """
    known = _kept(sides, store, keys, classes)
    if known is not None:
        return known
    acls = set(CANNED.values()) if sides.source.has_acls else ()
    with ThreadPoolExecutor(3, thread_name_prefix="moveout-survey") as threads:
        encryption = threads.submit(sides.destination.setting, "encryption")
        versions = threads.submit(sides.source.keeps_versions)
        tags = threads.submit(lambda: sides.source.tags_readable(samples or _samples(sides)))
        plan = ProbePlan(keys, classes, odd_tags=True, headers=STANDARD_HEADERS, acls=acls)
        capabilities = probe(sides.destination, plan, later)
        losses = tuple(
            _losses(sides, capabilities, keeps_versions=versions.result(), tags_readable=tags.result())
        )
        new_survey = CapabilitySurvey(capabilities, bool(encryption.result()), losses)
    value = capabilities.as_json() | {
        "version": 1,
        "tried": {"keys": sorted(keys), "classes": sorted(classes)},
        "encrypts": new_survey.encrypts,
        "bucket_losses": [[loss.property, loss.reason] for loss in new_survey.losses],
    }
    if not sides.destination.has_faltered:
        later(lambda: store.put(CAPABILITIES, canonical_json.encode_pretty(value)))
    return new_survey


def _kept(
    sides: Sides, store: MultipartStore, keys: frozenset[str], classes: frozenset[str]
) -> CapabilitySurvey | None:
    try:
        recorded = canonical_json.decode(store.read(CAPABILITIES), CAPABILITIES)
        tried, bucket_losses = recorded["tried"], recorded["bucket_losses"]
        capabilities = Capabilities(**{name: recorded[name] for name in Capabilities.__struct_fields__})
        fresh = datetime.now(UTC) - datetime.fromisoformat(capabilities.at) < _HOLDS
    except (GoneError, DamageError, KeyError, ValueError):
        return None
    if capabilities.lock_denied:
        sides.destination.object_lock()
        if not sides.destination.lock_denied:
            return None  # the right has been given since
    is_same_server = (capabilities.url, capabilities.server) == (
        sides.destination.url,
        sides.destination.server,
    )
    if not (fresh and is_same_server and keys <= set(tried["keys"]) and classes <= set(tried["classes"])):
        return None
    losses = tuple(Loss(sides.source.name, property_name, reason) for property_name, reason in bucket_losses)
    return CapabilitySurvey(capabilities, bool(recorded.get("encrypts")), losses)


def _samples(sides: Sides) -> Sequence[ObjectSummary]:
    return list(islice(sides.source.list(), _TAG_SAMPLES))


def _losses(
    sides: Sides, capabilities: Capabilities, *, keeps_versions: bool | None, tags_readable: bool
) -> Iterator[Loss]:
    """Yield what a sync cannot copy, whatever the objects are."""
    source, name = sides.source, sides.source.name
    yield Loss(name, "last modified", "every object has the time at which it was copied")
    if sides.history:
        yield Loss(name, "version ids", "the destination gives its own; the record says which became which")
        if has(source.server, Trait.MARKERS_APART):
            reason = "a version without an id that was replaced in the second of a delete marker counts"
            yield Loss(
                name, "order of versions", f"{reason} as the older one: the server does not list their order"
            )
    elif keeps_versions:
        yield Loss(
            name,
            "versions",
            "only current ones are copied; older ones, if there are any, come with --history",
        )
    elif keeps_versions is None:
        yield Loss(name, "versions", "these credentials may not know whether there are older ones")
    if not capabilities.probed:
        yield Loss(sides.destination.name, "trial of the destination", capabilities.why)
    if lists_no_keys_beneath(source.server):
        yield Loss(name, "keys below the names of objects", BENEATH)
    if not tags_readable:
        yield Loss(name, "tags", "the objects' tags may not, or cannot, be read")

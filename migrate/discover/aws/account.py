"""Lists what an AWS account holds: all services of the table in all regions that the account has enabled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from exporters.discovery import Discovery, FoundSource
from exporters.errors import NotAllowedError, SourceError, SourceUsageError
from exporters.limits import Note
from migrate.discover import buckets
from migrate.discover.aws.bill import BillLine, costs_without_finds, read_bill
from migrate.discover.aws.connection import WORKERS, AwsConnection, CallFailedError, Failure
from migrate.discover.aws.entries import Thing, entries_of, size_of, thing_of
from migrate.discover.aws.services import METRIC_DATA, METRICS, Call, Metric, Resource, Service, resources
from migrate.number_text import all_things, things
from migrate.storage.s3 import client as s3_client

_BUCKET_SIZE = Metric("AWS/S3", "BucketSizeBytes", "BucketName")
_BUCKET_OBJECTS = Metric("AWS/S3", "NumberOfObjects", "BucketName")
POLICY_STEP = "`moveout discover --print-policy` prints the policy that the role needs"
_PERIOD = timedelta(days=1)
"""S3 reports its sizes once a day (S3's guide, "Metrics and dimensions")."""
_LOOK_BACK = timedelta(days=3)
_QUERIES = 500
"""How many metrics one GetMetricData takes (CloudWatch API reference)."""
_STORAGE_TYPE = "StorageType"


def discover(url: str, *, secrets: Mapping[str, str], note: Note, names_only: bool = False) -> Discovery:
    """Return what an account holds: ``aws://PROFILE``, or ``aws://`` for the usual ``AWS_*`` variables.

    See ``exporters.discovery.Discover``.
    """
    profile = _profile_of(url)
    location = s3_client.S3Location("", "", profile, secrets)
    connection = AwsConnection(s3_client.session(location), url)
    account = connection.account_id()
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="discover-aws") as pool:
        try:
            inventory = _Inventory(connection, pool, note, names_only=names_only)
            return inventory.discover(account, location.url, secrets)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _profile_of(url: str) -> str | None:
    parts = urlsplit(url)
    if parts.scheme != "aws" or parts.path.strip("/") or parts.query or "@" in parts.netloc:
        raise SourceUsageError(
            f"{url!r} is not the URL of an AWS account",
            next_step="write aws://PROFILE with a profile of ~/.aws/config, or aws:// for the AWS_* variables",
        )
    return parts.netloc or None


class _Inventory:
    """The discovery of one account. ``gaps`` and ``failed`` fill up while its methods ask. ``names_only``: the bill and
    sizes are not asked for.
    """

    def __init__(self, connection: AwsConnection, pool: Executor, note: Note, *, names_only: bool) -> None:
        self.gaps: list[str] = []
        self._connection = connection
        self._pool = pool
        self._note = note
        self._names_only = names_only
        self._regions = self._enabled_regions()
        self._failed = FailedCalls(self._regions)

    def discover(self, account: str, buckets_url: str, secrets: Mapping[str, str]) -> Discovery:
        """List everything. ``buckets_url`` names all buckets of the account."""
        listings = _listings()
        self._note(
            f"asking for {things(len(listings), 'list')} in {things(len(self._regions), 'region')}"
            f" of the account {account}"
        )
        bill = None if self._names_only else self._pool.submit(read_bill, self._connection)
        bucket_listing = self._pool.submit(self._buckets, buckets_url, secrets)
        all_things = self._list(listings)
        if not self._names_only:
            self._add_details(all_things)
            self._add_metrics(all_things)
        sources, not_taken = entries_of(all_things)
        bucket_sources = bucket_listing.result()
        sources += bucket_sources if self._names_only else self._with_sizes(bucket_sources)
        for sentence in self._failed.not_offered():
            self._note(sentence)
        regional = [call for call, of_call in listings.items() if of_call[0][1].regional]
        self.gaps += self._failed.sentences(len(regional))
        if bill is not None:
            places: dict[str, set[str]] = defaultdict(set)
            for thing in all_things:
                places[thing.service.name].add(thing.region)
            places["S3"].update(source.region for source in sources if source.url.startswith("s3:"))
            self.gaps += self._costs_without_finds(bill, places)
        return Discovery(sorted(sources, key=lambda source: source.name), not_taken, self.gaps)

    def _enabled_regions(self) -> list[str]:
        try:
            return self._connection.regions()
        except CallFailedError as exc:
            only = self._connection.region
            self.gaps.append(f"the account's regions could not be listed: {exc}; only {only} was looked at")
            return [only]

    def _list(self, listings: Mapping[Call, Sequence[tuple[Service, Resource]]]) -> list[Thing]:
        """Make all calls in all regions."""
        requests = [
            (call, region)
            for call, of_call in listings.items()
            for region in (self._regions if of_call[0][1].regional else [self._connection.global_region])
        ]
        answers = self._pool.map(lambda request: self._answer(*request), requests)
        all_things: list[Thing] = []
        for (call, region), answer in zip(requests, answers, strict=True):
            if isinstance(answer, Failure):
                services = list(dict.fromkeys(service.name for service, _ in listings[call]))
                self._failed.add_listing(services, region if listings[call][0][1].regional else "", answer)
            else:
                all_things += [thing_of(listings[call], region, item) for item in answer]
        return all_things

    def _answer(self, call: Call, region: str, **arguments: Any) -> list[Any] | Failure:
        try:
            return self._connection.items(call, region, **arguments)
        except CallFailedError as exc:
            return exc.failure

    def _add_details(self, all_things: Sequence[Thing]) -> None:
        """Ask for the sizes that the listings do not say."""
        asked = [(thing, thing.resource.detail) for thing in all_things if thing.resource.detail]
        answers = self._pool.map(
            lambda asking: self._answer(
                asking[1].call, asking[0].region, **{asking[1].argument: asking[0].name}
            ),
            asked,
        )
        for (thing, _), answer in zip(asked, answers, strict=True):
            if isinstance(answer, Failure):
                self._failed.add(f"sizes in {thing.service.name} could not be read", thing.region, answer)
            else:
                thing.size_bytes = size_of(thing.resource, answer)

    def _add_metrics(self, all_things: Sequence[Thing]) -> None:
        """Ask CloudWatch for the bytes that databases hold."""
        by_metric: dict[tuple[Metric, str], list[Thing]] = defaultdict(list)
        for thing in all_things:
            if thing.resource.metric:
                by_metric[thing.resource.metric, thing.region].append(thing)
        answers = self._pool.map(lambda asking: self._values(*asking), by_metric)
        for ((metric, region), of_metric), values in zip(by_metric.items(), answers, strict=True):
            if isinstance(values, Failure):
                self._failed.add("sizes in CloudWatch could not be read", region, values)
                continue
            for thing in of_metric:
                if (value := values.get(thing.name)) is None:
                    continue
                if not metric.is_free_space:
                    thing.size_bytes = value
                elif thing.size_bytes is not None:
                    thing.size_bytes = max(0, thing.size_bytes - value)

    def _values(self, metric: Metric, region: str) -> dict[str, int] | Failure:
        try:
            return _newest_values(self._connection, metric, region)
        except CallFailedError as exc:
            return exc.failure

    def _buckets(self, url: str, secrets: Mapping[str, str]) -> list[FoundSource]:
        try:
            discovery = buckets.discover(url, secrets=secrets, note=self._note, names_only=self._names_only)
        except NotAllowedError:
            self._failed.add_listing(["S3"], "", Failure("s3:ListAllMyBuckets is denied", is_denied=True))
            return []
        except SourceError as exc:
            self._failed.add_listing(["S3"], "", Failure(str(exc)))
            return []
        self.gaps += discovery.gaps
        return list(discovery.sources)

    def _with_sizes(self, buckets: Sequence[FoundSource]) -> list[FoundSource]:
        """Return the buckets with the sizes and counts of CloudWatch where there is no other source for them."""
        regions = sorted({source.region for source in buckets if source.size_bytes is None and source.region})
        counts: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for metric, values_of_all in ((_BUCKET_SIZE, sizes), (_BUCKET_OBJECTS, counts)):
            answers = self._pool.map(lambda region, metric=metric: self._values(metric, region), regions)
            for region, values in zip(regions, answers, strict=True):
                if isinstance(values, Failure):
                    self._failed.add("sizes in CloudWatch could not be read", region, values)
                else:
                    values_of_all.update(values)
        return [
            replace(source, items=counts.get(source.name), size_bytes=sizes.get(source.name))
            if source.size_bytes is None
            else source
            for source in buckets
        ]

    def _costs_without_finds(self, bill: Future[list[BillLine]], places: Mapping[str, set[str]]) -> list[str]:
        try:
            return costs_without_finds(bill.result(), places, self._regions)
        except CallFailedError as exc:
            return [f"the bill could not be read, so nothing counts a second time what is there: {exc}"]


def _listings() -> dict[Call, list[tuple[Service, Resource]]]:
    """Return the resources that each call lists, in the order of the table. Buckets are listed by ``buckets``."""
    by_call: dict[Call, list[tuple[Service, Resource]]] = defaultdict(list)
    for service, resource in resources():
        if resource.scheme != "s3":
            by_call[resource.call].append((service, resource))
    return dict(by_call)


class FailedCalls:
    """What could not be listed, and where; the same failure in many regions is one sentence. ``regions`` are all
    regions that were asked.
    """

    def __init__(self, regions: Sequence[str]) -> None:
        self._regions = regions
        self._failures: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._not_offered: dict[str, set[str]] = defaultdict(set)
        self._closed_listings: dict[str, int] = defaultdict(int)

    def add(self, sentence: str, region: str, failure: Failure) -> None:
        """Record that something failed in a region (empty: in the whole account); ``sentence`` lacks the reason."""
        self._failures[sentence, failure.reason].add(region)

    def add_listing(self, services: Collection[str], region: str, failure: Failure) -> None:
        """Record that services could not be listed in a region."""
        *most, last = services
        words = f"{', '.join(most)} and {last}" if most else last
        self._closed_listings[region] += failure.is_denied or failure.not_offered
        if failure.not_offered:
            self._not_offered[words].add(region)
        else:
            self.add(f"{words} could not be listed", region, failure)

    def sentences(self, listings: int) -> list[str]:
        """Return the gaps. A region in which each of the ``listings`` is denied or not offered is one sentence."""
        closed = {region for region, count in self._closed_listings.items() if region and count >= listings}
        sentences = []
        if closed:
            sentences.append(
                f"{self._words(closed)}: nothing could be listed: every call is denied; {POLICY_STEP}"
            )
        for (sentence, reason), regions in self._failures.items():
            where = regions - closed
            if where:
                prefix = f"{self._words(where)}: " if any(where) else ""
                sentences.append(f"{prefix}{sentence}: {reason}")
        return sentences

    def not_offered(self) -> list[str]:
        """Return what regions do not offer, and what the account has never used: nothing is missing there."""
        return [
            f"{self._words(regions)}: {services} is not offered there, or was never used"
            for services, regions in sorted(self._not_offered.items())
        ]

    def _words(self, regions: Collection[str]) -> str:
        if len(regions) > 1 and len(regions) == len(self._regions):
            return all_things(len(regions), "region")
        return ", ".join(sorted(filter(None, regions)))


def _newest_values(connection: AwsConnection, metric: Metric, region: str) -> dict[str, int]:
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

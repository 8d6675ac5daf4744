"""The bill as a second count: a service that costs money, and of which nothing was found, is a gap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from msgspec import Struct

from migrate.discover.aws.connection import AwsConnection
from migrate.discover.aws.services import COSTS, HOLDS_NO_DATA, SERVICES

_METRIC = "UnblendedCost"
_CREDITS = ("Credit", "Refund")
"""They would hide what was used (Cost Explorer, dimension RECORD_TYPE)."""


class BillLine(Struct, frozen=True):
    """What a service cost in a region within two months. ``region`` is as the bill has it: also ``global``."""

    service: str
    region: str
    amount: Decimal
    currency: str


def read_bill(connection: AwsConnection) -> list[BillLine]:
    """Return the costs of this month and the one before. Raises ``CallFailedError``. Each page costs 0.01 USD."""
    today = datetime.now(UTC).date()
    begin = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    months = connection.items(
        COSTS,
        connection.region,
        TimePeriod={"Start": begin.isoformat(), "End": today.isoformat()},
        Granularity="MONTHLY",
        Metrics=[_METRIC],
        GroupBy=[{"Type": "DIMENSION", "Key": "SERVICE"}, {"Type": "DIMENSION", "Key": "REGION"}],
        Filter={"Not": {"Dimensions": {"Key": "RECORD_TYPE", "Values": list(_CREDITS)}}},
    )
    amounts: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    for month in months:
        for group in month.get("Groups", []):
            service, region = group["Keys"]
            cost = group["Metrics"][_METRIC]
            amounts[service, region, cost["Unit"]] += Decimal(cost["Amount"])
    return [
        BillLine(service, region, amount, currency)
        for (service, region, currency), amount in amounts.items()
        if amount > 0
    ]


def costs_without_finds(
    bill: Collection[BillLine], finds: Mapping[str, Collection[str]], regions: Collection[str]
) -> list[str]:
    """Return a sentence for each service that costs money and of which nothing was found.

    ``finds`` has the regions with finds by the service's name in the table. A cost of one of ``regions`` needs a find
    in that region, any other cost needs one anywhere.
    """
    unexplained: dict[str, list[BillLine]] = defaultdict(list)
    for line in bill:
        if line.service not in HOLDS_NO_DATA and not _is_explained(line, finds, regions):
            unexplained[line.service].append(line)
    return [_sentence(service, lines) for service, lines in sorted(unexplained.items())]


def _is_explained(line: BillLine, finds: Mapping[str, Collection[str]], regions: Collection[str]) -> bool:
    services = [service for service in SERVICES if line.service in service.billing_names]
    places = {place for service in services for place in finds.get(service.name, ())}
    is_regional = any(resource.regional for service in services for resource in service.resources)
    return line.region in places if is_regional and line.region in regions else bool(places)


def _sentence(service: str, lines: Collection[BillLine]) -> str:
    amount, currency = sum(line.amount for line in lines), next(iter(lines)).currency
    cost = f"{amount:.2f}" if amount >= Decimal("0.01") else "less than 0.01"
    where = ", ".join(sorted({line.region for line in lines}))
    known = any(service in known.billing_names for known in SERVICES)
    why = "nothing of it was found there" if known else "moveout does not know this service"
    return f"the bill has {service} ({where}): {cost} {currency} in two months, and {why}: look whether it holds data"

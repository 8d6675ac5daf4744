"""What listed things are for moveout: sources, or entries that are not taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any
from urllib.parse import quote

import jmespath
from msgspec import Struct

from exporters.discovery import FoundSource, NotTaken
from migrate.discover.aws.services import Resource, Service

_TLS = {"postgresql": "sslmode=require", "mysql": "ssl-mode=required"}
"""Traffic to RDS crosses networks; it offers TLS everywhere (RDS user guide, "Using SSL/TLS")."""
_READY = {"available", "backing-up", "storage-optimization", "configuring-enhanced-monitoring"}
"""States in which an instance takes connections (RDS user guide, "Viewing DB instance status")."""


class Thing(Struct):
    """One listed thing. ``size_bytes`` is None until something says it."""

    service: Service
    resource: Resource
    region: str
    name: str
    item: Any
    size_bytes: int | None = None


def thing_of(of_call: Sequence[tuple[Service, Resource]], region: str, item: Any) -> Thing:
    """Return a listed item as what the table says that it is."""
    service, resource = next(
        (service, resource)
        for service, resource in of_call
        if not resource.condition or jmespath.search(resource.condition, item)
    )
    name = str(jmespath.search(resource.name, item))
    size_bytes = None if resource.detail else size_of(resource, [item])
    return Thing(service, resource, region if resource.regional else "", name, item, size_bytes)


def size_of(resource: Resource, items: Sequence[Any]) -> int | None:
    """Return the bytes of items together; None where none of them says its size."""
    sizes = []
    for item in items:
        factors = [jmespath.search(size, item) for size in resource.size]
        if factors and None not in factors:
            sizes.append(int(prod(factors)) * resource.unit)
    return sum(sizes) if sizes or not items else None


def entries_of(things: Sequence[Thing]) -> tuple[list[FoundSource], list[NotTaken]]:
    """Return what becomes a source, and what is not taken, in the order of the table, then of regions and names."""
    public = {
        (thing.region, jmespath.search(thing.resource.part_of, thing.item))
        for thing in things
        if thing.resource.part_of and thing.item.get("PubliclyAccessible")
    }
    sources: list[FoundSource] = []
    not_taken: list[NotTaken] = []
    for thing in things:
        resource, item = thing.resource, thing.item
        entry: FoundSource | NotTaken
        if resource.part_of:
            continue
        if resource.scheme:
            is_public = bool(item.get("PubliclyAccessible")) or (thing.region, thing.name) in public
            entry = _database_source(
                resource, item, region=thing.region, size_bytes=thing.size_bytes, is_public=is_public
            )
        else:
            label = jmespath.search(resource.label, item) if resource.label else ""
            name = f"{thing.name} ({label})" if label and label != thing.name else thing.name
            entry = NotTaken(resource.kind, name, thing.size_bytes, thing.region, resource.advice)
        if isinstance(entry, FoundSource):
            sources.append(entry)
        else:
            not_taken.append(entry)
    return sources, not_taken


def _database_source(
    resource: Resource,
    item: Mapping[str, Any],
    *,
    region: str,
    size_bytes: int | None,
    is_public: bool,
) -> FoundSource | NotTaken:
    """Return all databases of an instance or cluster as a source. Its password has to be filled in.

    One without an address is not taken: it is being made, or stopped for good.
    """
    name = item.get("DBInstanceIdentifier") or item["DBClusterIdentifier"]
    status = item.get("DBInstanceStatus") or item.get("Status", "")
    endpoint = item.get("Endpoint")
    # An instance has its port next to the address, a cluster has the address alone.
    host, port = (
        (endpoint.get("Address"), endpoint.get("Port"))
        if isinstance(endpoint, Mapping)
        else (endpoint, item.get("Port"))
    )
    if not host:
        advice = f"It has no address (status {status}): start it, then discover again."
        return NotTaken(resource.kind, name, size_bytes, region, advice)
    user = quote(str(item.get("MasterUsername", "")), safe="")
    return FoundSource(
        f"{resource.scheme}://{user}@{host}:{port}/*?{_TLS[resource.scheme]}",
        name,
        size_bytes=size_bytes,
        identity=item.get("DBInstanceArn") or item.get("DBClusterArn", ""),
        region=region,
        facts=list(_facts(item, region, is_public=is_public)),
        problems=() if status in _READY else (f"its status is {status}: it may not answer",),
    )


def _facts(item: Mapping[str, Any], region: str, *, is_public: bool) -> Iterator[str]:
    yield f"{item['Engine']} {item.get('EngineVersion', '')}".rstrip()
    yield f"region {region}"
    yield "publicly reachable" if is_public else "reachable only from inside its VPC"
    secret = (item.get("MasterUserSecret") or {}).get("SecretArn")
    yield f"its password is in Secrets Manager: {secret}" if secret else "its password has to be filled in"

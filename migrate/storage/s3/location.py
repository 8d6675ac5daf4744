"""Buckets and prefixes as locations: ``s3://bucket/prefix?profile=NAME``."""

from __future__ import annotations

from migrate.storage.registry import Access, LocationType
from migrate.storage.s3.client import parse
from migrate.storage.s3.object_lock import S3ObjectLock
from migrate.storage.s3.store import S3Store


def _open(url: str, access: Access) -> S3Store:
    return S3Store(parse(url, secrets=access.secrets), cancellation=access.cancellation)


def _open_object_lock(url: str, access: Access) -> S3ObjectLock:
    return S3ObjectLock(parse(url, secrets=access.secrets), access.note)


LOCATION = LocationType("s3://bucket/prefix?profile=NAME", _open, _open_object_lock)

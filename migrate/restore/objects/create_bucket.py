"""Makes the bucket that a restore names, with object lock where the source's bucket had it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from migrate.bundle.reader import BundleReader
from migrate.errors import GoneError, MoveoutError, NotAllowedError, UnreachableError
from migrate.storage.s3.destination_bucket import make_bucket, open_destination_bucket


def create_bucket(reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]) -> str:
    """Make the bucket of a URL where there is none. See ``CreateDestination``. Object lock can only be switched on when
    a bucket is made; a restore writes all other settings.
    """
    try:
        open_destination_bucket(url, secrets=secrets)
    except GoneError:
        pass
    else:
        return ""
    file = next(reader.source_files(source, "bucket.json"), None)
    settings = json.loads(reader.read_checked(file)) if file is not None else {}
    if "object-lock" not in settings:
        return f"made the bucket {make_bucket(url, secrets=secrets)}"
    try:
        name = make_bucket(url, secrets=secrets, object_lock=True)
    except (NotAllowedError, UnreachableError):
        raise
    except MoveoutError as exc:
        name = make_bucket(url, secrets=secrets)
        return f"made the bucket {name} without object lock, which the server refuses ({exc})"
    return f"made the bucket {name} with object lock"

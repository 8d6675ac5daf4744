"""Makes the bucket that a restore names, with object lock where the source's bucket had it."""

from __future__ import annotations

from collections.abc import Mapping

from migrate.bundle import canonical_json
from migrate.bundle.reader import BundleReader
from migrate.errors import GoneError
from migrate.restore.common.api import Created
from migrate.storage.s3.destination_bucket import make_bucket_like, open_destination_bucket


def create_bucket(
    reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
) -> Created | None:
    """Make the bucket of a URL where there is none. See ``CreateDestination``. A restore writes all other settings."""
    try:
        open_destination_bucket(url, secrets=secrets)
    except GoneError:
        pass
    else:
        return None
    file = next(reader.source_files(source, "bucket.json"), None)
    settings = canonical_json.decode(reader.read_checked(file), file.key) if file is not None else {}
    made = make_bucket_like(settings, url, secrets=secrets)
    return Created(made.sentence, as_source=not made.refused)

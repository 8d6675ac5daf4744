"""Links that open one file each for a time, for places whose server makes no accounts (Amazon S3 user guide, "presigned
URLs"): whoever has the link reads the file, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

import botocore.exceptions as boto_errors

from migrate.errors import UsageError
from migrate.store import s3_client

LONGEST = timedelta(days=7)
"""What signature version 4 allows."""


def links(location: s3_client.S3Location, keys: Iterable[str], lasts: timedelta) -> Iterator[tuple[str, str]]:
    """Yield (key, link). Nothing is asked of the server: the link is computed. Raises ``UsageError``."""
    if not timedelta(seconds=1) <= lasts <= LONGEST:
        raise UsageError(
            "links last at most 7 days", next_step="name an earlier end, and make new links then"
        )
    prefix = (
        location.prefix if not location.prefix or location.prefix.endswith("/") else location.prefix + "/"
    )
    client = s3_client.client(
        location, signature="s3v4"
    )  # botocore would make links of version 2 for most servers
    for key in keys:
        try:
            link = client.generate_presigned_url(
                "get_object",
                Params={"Bucket": location.bucket, "Key": prefix + key},
                ExpiresIn=int(lasts.total_seconds()),
            )
        except (boto_errors.BotoCoreError, ValueError) as exc:
            raise s3_client.translate(exc, location.url) from exc
        yield key, str(link)

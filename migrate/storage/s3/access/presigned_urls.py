"""Links that open one file each for a time, for locations whose server makes no accounts (Amazon S3 user guide,
"presigned URLs"): whoever has the link reads the file, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.exceptions as boto_errors

from migrate.errors import UsageError
from migrate.storage.s3 import client as s3_client
from migrate.storage.s3.errors import translate

LONGEST = timedelta(days=7)
"""What signature version 4 allows."""


def links(
    s3_location: s3_client.S3Location, keys: Iterable[str], lasts: timedelta
) -> Iterator[tuple[str, str]]:
    """Yield (key, link). Nothing is asked of the server: the link is computed. Raises ``UsageError``, also where the
    credential that signs them ends sooner, and they with it.
    """
    if not timedelta(seconds=1) <= lasts <= LONGEST:
        raise UsageError(
            "links last at most 7 days", next_step="name an earlier end, and make new links then"
        )
    session = s3_client.session(s3_location)
    _check_credential(session, datetime.now(UTC) + lasts)
    # Without that botocore makes links of version 2 for most servers.
    client = s3_client.client(s3_location, signature="s3v4", boto_session=session)
    for key in keys:
        try:
            link = client.generate_presigned_url(
                "get_object",
                Params={"Bucket": s3_location.bucket, "Key": s3_location.folder + key},
                ExpiresIn=int(lasts.total_seconds()),
            )
        except (boto_errors.BotoCoreError, ValueError) as exc:
            raise translate(exc, s3_location.url) from exc
        yield key, str(link)


def _check_credential(session: Any, end: datetime) -> None:
    """Raise ``UsageError`` where a session's credential may end before the links do."""
    credentials = session.get_credentials()
    if credentials is None or not credentials.get_frozen_credentials().token:
        return
    known = getattr(credentials, "_expiry_time", None)  # botocore reports it nowhere else
    if known is None or known < end:
        lifetime = (
            f"ends at {known.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if known else "does not show when it ends"
        )
        raise UsageError(
            f"the credential is a session's and {lifetime}: links that it signs end with it",
            next_step="name a profile with a key of its own: s3://bucket/prefix?profile=NAME",
        )

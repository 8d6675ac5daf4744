"""What a listing does not show, and what an empty one means."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import unquote_to_bytes

from exporters.api import Gap
from exporters.bucket_api import Bucket
from exporters.lossless_text import text_of
from exporters.objects.server_quirks import Trait, has
from exporters.selection import Selection

BENEATH = (
    "this server lists no key below the name of another object (a/b where a is an object too);"
    " whether there are any cannot be found out, they can only be read by their names"
)

NOT_UTF_8 = (
    "its key, which is percent-encoded here, is not UTF-8, so neither a bundle nor a sync can name it; copy it to"
    " another key at the source, or fetch it by another program"
)

_NO_TIME = datetime.min.replace(tzinfo=UTC)


def gaps_not_utf_8(bucket: Bucket, selection: Selection) -> Iterator[Gap]:
    """Yield the keys that listings have shown and that are not UTF-8; sizes and times of the selection do not count."""
    names = Selection(include=selection.include, exclude=selection.exclude)
    for key in sorted(bucket.not_utf_8):
        reason = names.excludes(text_of(unquote_to_bytes(key))[len(bucket.prefix) :], None, _NO_TIME)
        yield Gap(key, "excluded", reason) if reason else Gap(key, "failed", NOT_UTF_8)


def lists_no_keys_beneath(server: str) -> bool:
    """Tell whether a server is known to hide keys below names of objects from every listing: MinIO on a single drive.
    From outside it looks like a MinIO of many drives.
    """
    return has(server, Trait.HIDES_BENEATH)


def nothing_under(bucket: Bucket) -> str:
    """Return the message where a listing shows nothing: a prefix is more likely misspelt than empty. Of a whole bucket
    there is nothing to say.
    """
    if not bucket.prefix:
        return ""
    return f"nothing is under the prefix {bucket.prefix!r} of the bucket {bucket.name}; check the prefix"

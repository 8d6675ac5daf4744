"""What a listing does not show, and what an empty one means."""

from __future__ import annotations

from exporters.bucket_api import Bucket
from exporters.objects.server_quirks import Trait, has

BENEATH = (
    "this server lists no key below the name of another object (a/b where a is an object too);"
    " whether there are any cannot be found out, they can only be read by their names"
)


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

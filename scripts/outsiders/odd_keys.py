"""Names that file systems and clouds do not take, as keys of objects.

The classes of characters are those of rclone's encoder (https://rclone.org/overview/#encoding); the names are made
here.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from minio.error import S3Error

from scripts.outsiders.bucket_move import BucketMove, client_of
from scripts.outsiders.suite import Context, Skipped, SuiteRow
from scripts.servers import S3Server

_CLASSES = {
    "LtGt": "<>",
    "DoubleQuote": '"',
    "SingleQuote": "'",
    "BackQuote": "`",
    "Dollar": "$",
    "Colon": ":",
    "Question": "?",
    "Asterisk": "*",
    "Pipe": "|",
    "Hash": "#",
    "Percent": "%",
    "BackSlash": "\\",
    "CrLf": "\r\n",
    "Del": "\x7f",
    "Ctl": "".join(map(chr, range(1, 32))),
    "Space": " ",
    "Period": ".",
    "Tilde": "~",
    "HtVt": "\t\v",
    "SquareBracket": "[]",
    "Semicolon": ";",
    "Exclamation": "!",
    # What rclone writes in their place, and the character by which it marks that it meant them.
    "replacements": "\uff0f\uff1c\uff1e\uff02\uff07\uff40\uff04\uff1a\uff1f\uff0a\uff5c\uff03\uff05\uff3c\uff0e\uff5e"
    "\u240d\u240a\u2421\u2420\u201b",
}
"""By rclone's names of them. Slash, zero bytes and invalid UTF-8 cannot be within a name of a key."""
_LOCATIONS = ("{}", "{}left", "right{}", "mid{}dle", "{0}{0}", "dir{}/name", "{}/name")
_WHOLE = (
    "dots/..x",
    "dots/x..",
    "percent/%2F",
    "percent/%00",
    "percent/%",
    "plus/a+b",
    "space/ a ",
    "nul/NUL",
    "nul/con.txt",
)


class OddKeys:
    """The same bucket to another MinIO, and to a server over a file system."""

    name = "odd-keys"
    origin = "the classes of characters of rclone's encoder, rclone.org/overview; names made here"

    def obtain(self) -> Path | Skipped:
        """Return a directory; nothing is needed."""
        return Path(tempfile.gettempdir())

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Fill a bucket, and move it to two servers."""
        source = context.servers.minio("outsiders-old")
        refused = _fill(source, "odd-keys", context.choose(sorted(odd_keys())))
        yield SuiteRow("filling the bucket", skipped=f"{len(refused)} names are refused by the source itself")
        for destination in (
            context.servers.minio("outsiders-new"),
            context.servers.versitygw("outsiders-gateway"),
        ):
            for row in BucketMove(context, source, destination).run(["odd-keys"]):
                row.variant = f"to {destination.profile.removeprefix('outsiders-')}: {row.variant}"
                yield row


def odd_keys() -> Iterator[str]:
    """Yield keys, some of them more than once."""
    for name, characters in _CLASSES.items():
        for character in characters:
            for location in _LOCATIONS:
                key = f"{name}/{ord(character):04x}/" + location.format(character)
                if not {".", ".."} & set(key.split("/")):  # no client of S3 sends these as they are
                    yield key
    yield from _WHOLE


def _fill(server: S3Server, bucket: str, keys: Iterable[str]) -> list[str]:
    """Write an object for each key; return the keys that the server refuses."""
    client, refused = client_of(server), []
    client.make_bucket(bucket)
    for key in dict.fromkeys(keys):
        body = key.encode()
        try:
            client.put_object(bucket, key, io.BytesIO(body), len(body), metadata={"number": str(len(body))})
        except (S3Error, ValueError):
            refused.append(key)
    return refused


SUITE = OddKeys()

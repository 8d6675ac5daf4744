"""What a customer needs to fetch a bundle by links that open one file each: a script for curl, a list for aria2."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from migrate.bundle import layout
from migrate.bundle.reader import BundleReader, hash_file
from migrate.report.links import Link
from migrate.storage.api import Store


def files_of(store: Store) -> list[tuple[str, int, str]]:
    """Return (key, size, SHA-256 or '') of every file of a sealed bundle, what is read first at the beginning. What is
    named like no file of a bundle is left out, for names become paths where it is fetched.

    Raises like ``BundleReader``.
    """
    reader = BundleReader(store)
    tags = [
        (key, store.stat(key).size_bytes, sha256)
        for key, sha256 in (
            (layout.TAG_MANIFEST, hash_file(store, layout.TAG_MANIFEST)),
            *reader.tags.items(),
        )
    ]
    payload = [(file.key, file.size_bytes, file.sha256) for file in reader.files()]
    signature_files = [info for info in store.list(layout.SIGNATURES) if layout.is_tag_name(info.key)]
    signatures = [(info.key, info.size_bytes, "") for info in signature_files]
    return [*tags, *payload, *signatures]


_SCRIPT = """\
#!/bin/sh
# Fetches a bundle into a directory, goes on where it stopped, and checks every byte. Links end {expires}.
set -eu
mkdir -p "${{1:?usage: sh $0 DIRECTORY}}"
cd "$1"
get() {{
    mkdir -p "$(dirname "$1")"
    [ -e "$1" ] && return
    curl -fsS --retry 5 -C - -o "$1.part" "$2" || curl -fsS --retry 5 -o "$1.part" "$2"
    mv "$1.part" "$1"
}}
"""
CHECK = "sha256sum --strict --quiet -c tagmanifest-sha256.txt manifest-sha256.txt"


def script(files: Sequence[Link], expires: str) -> Iterator[str]:
    """Yield a script for sh that needs curl and sha256sum."""
    yield _SCRIPT.format(expires=expires)
    for file in files:
        yield f"get {shlex.quote(file.key)} {shlex.quote(file.link)}\n"
    yield f'{CHECK}\necho "the bundle is whole"\n'


def aria2(files: Sequence[Link]) -> Iterator[str]:
    """Yield an input file of aria2's: a link a line, its options below it (aria2c(1), "Input File")."""
    for file in files:
        yield f"{file.link}\n  out={file.key}\n  continue=true\n"
        if file.sha256:
            yield f"  checksum=sha-256={file.sha256}\n"

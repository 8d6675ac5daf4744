"""Links that open one file of a bundle each: written for the shell, for aria2 and for people."""

from __future__ import annotations

import fcntl
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct

from exporters.structs import as_dict
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader, hash_file
from migrate.case.model import Endpoint
from migrate.cli.common.session import Session
from migrate.cli.common.terminal import Console
from migrate.custody.log.events import need_sealed, record
from migrate.custody.signing.keys import Signer
from migrate.errors import OK, UsageError
from migrate.number_text import count_words, moment_words
from migrate.report.links import Link, Offer, links_page
from migrate.storage.api import Store
from migrate.storage.local.errors import translated

_SCRIPT = """\
#!/bin/sh
# Fetches a bundle into a directory, goes on where it stopped, and checks every byte. Links end {expires}.
set -eu
mkdir -p "${{1:?usage: sh $0 DIRECTORY}}"
cd "$1"
get() {{
    mkdir -p "$(dirname "$1")"
    [ -e "$1" ] && return
    fetch "$2" -C - -o "$1.part" || fetch "$2" -o "$1.part"
    mv "$1.part" "$1"
}}
fetch() {{ # the link is no argument of curl's, which all users of the machine could read
    link=$1
    shift
    printf 'url = "%s"\n' "$link" | curl -fsS --retry 5 -K - "$@"
}}
"""
_CHECK = "sha256sum --strict --quiet -c tagmanifest-sha256.txt manifest-sha256.txt"


class Linked(Struct, frozen=True):
    """What fetches a bundle by links, and needs no credential."""

    location: str
    name: str
    file: str
    list: str
    page: str
    files: int
    expires: str
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return all but the links."""
        return as_dict(self)

    def draw(self, console: Console) -> None:
        """Print how it is used."""
        console.print(
            f"{self.file} fetches the {count_words(self.files)} files of {self.location} until {self.expires}"
        )
        console.print(f"Its owner runs either of these; {self.page} says how:")
        console.print(f"  sh {shlex.quote(self.file)} DIRECTORY", wrap=False)
        console.print(f"  aria2c -i {shlex.quote(self.list)}", wrap=False)
        console.print(
            "Whoever has one of the three can read the bundle: send them over a channel that you trust"
        )
        console.print(
            "Links cannot be taken back one by one: they end by themselves, or with the key that made them"
        )


def write_links(
    session: Session, location: Endpoint, file: Path, signer: Signer, *, to: str, until: datetime
) -> Linked:
    """Write the grant into the custody log, then the script, and the list and the page next to it: no link is anywhere
    that the log does not know. Raises ``UsageError`` where one of the files is there already, or the end is too far
    away.
    """
    from migrate.storage.s3 import client  # noqa: PLC0415  boto3 takes half a second to import
    from migrate.storage.s3.access import presigned_urls  # noqa: PLC0415  boto3 takes half a second to import

    store = session.store(location)
    s3_location = client.parse(location.url, secrets=location.reveal())
    listed = bundle_files(store)
    links = presigned_urls.links(s3_location, [key for key, _, _ in listed], until - datetime.now(UTC))
    offered = [
        Link(key, size, sha256, link) for (key, size, sha256), (_, link) in zip(listed, links, strict=True)
    ]
    paths = (file, file.with_suffix(".aria2"), file.with_suffix(".html"))
    offer = Offer(need_sealed(store), to, moment_words(until), file.name, paths[1].name, _CHECK)
    texts = (
        "".join(_script(offered, offer.expires)).encode(),
        "".join(_aria2(offered)).encode(),
        links_page(offer, offered),
    )
    with new_files(*paths) as files:
        details = {"to": to, "links": len(offered), "expires": until.astimezone(UTC).isoformat()}
        record(store, signer, "granted", details)
        for out, data in zip(files, texts, strict=True):
            out.write(data)
    made_script, made_list, made_page = map(str, paths)
    return Linked(
        location=store.location,
        name=to,
        file=made_script,
        list=made_list,
        page=made_page,
        files=len(offered),
        expires=offer.expires,
    )


def bundle_files(store: Store) -> list[tuple[str, int, str]]:
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


def _script(files: Sequence[Link], expires: str) -> Iterator[str]:
    """Yield a script for sh that needs curl and sha256sum. It checks the tag manifest, which has the hashes of all
    else, by its hash of now: whoever may write at the location could put another bundle there.
    """
    yield _SCRIPT.format(expires=expires)
    for file in files:
        yield f"get {shlex.quote(file.key)} {shlex.quote(file.link)}\n"
    for file in files:
        if file.key == layout.TAG_MANIFEST:
            yield f"echo '{file.sha256}  {file.key}' | sha256sum --strict --quiet -c -\n"
    yield f'{_CHECK}\necho "the bundle is whole"\n'


def _aria2(files: Sequence[Link]) -> Iterator[str]:
    """Yield an input file of aria2's: a link a line, its options below it (aria2c(1), "Input File")."""
    for file in files:
        yield f"{file.link}\n  out={file.key}\n  continue=true\n"
        if file.sha256:
            yield f"  checksum=sha-256={file.sha256}\n"


@contextmanager
def new_files(*paths: Path) -> Iterator[Sequence[BinaryIO]]:
    """Make files that only their owner can read, before there is anything to write; they are gone again where nothing
    comes. Raises ``UsageError`` where one is there already, unless it is empty as a killed command leaves it,
    ``NoSpaceError``.
    """
    with translated(paths[0]), ExitStack() as undo:
        with ExitStack() as opened:
            files = []
            for path in paths:
                files.append(opened.enter_context(_new_file(path)))
                undo.callback(path.unlink)
            yield files
        undo.pop_all()


def _new_file(path: Path) -> BinaryIO:
    try:
        with suppress(OSError):
            status = path.lstat()
            if (status.st_mode, status.st_size) == (stat.S_IFREG | 0o600, 0):
                with path.open("rb") as left:
                    fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever is at work there has the lock
                    path.unlink()  # a command that was killed left it
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with suppress(OSError):  # file systems of other machines may know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fdopen(descriptor, "wb")
    except OSError as exc:
        raise UsageError(
            f"{path} cannot be made: {exc.strerror}", next_step="name another: --file FILE"
        ) from exc

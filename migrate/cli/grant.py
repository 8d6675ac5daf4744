"""``moveout grant``: one customer may read one bundle, until a day."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from migrate.case import Endpoint, parse_deadline
from migrate.cli import app
from migrate.cli.findings import draw_findings
from migrate.cli.hold import PlaceWord
from migrate.cli.identity import KeyFiles, Passphrase, need_keys
from migrate.cli.options import CaseFile, known_place
from migrate.cli.session import TRANSFER_WORKERS, Session, verb
from migrate.cli.sources import load_case
from migrate.cli.words import count_words, moment_words
from migrate.custody import grant
from migrate.custody.grant import Granted, Tested
from migrate.custody.record import record
from migrate.errors import OK, DamageError, UsageError
from migrate.store import open_place
from migrate.store.base import MultipartStore

group = typer.Typer(help="Read access to one bundle, for a time.", no_args_is_help=True)
app.add_typer(group, name="grant")

_To = Annotated[str, typer.Option("--to", metavar="NAME", help="Whom: lower-case letters, digits and '-'.")]


@dataclass(frozen=True, slots=True)
class Created:
    """A grant. The credential is in ``file`` and nowhere else."""

    place: str
    name: str
    access_key: str
    expires: str
    file: str
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return all but the secret."""
        return asdict(self)

    def draw(self, console: Console) -> None:
        """Say what to hand over, and how it is used."""
        console.print(f"{self.name} may read {self.place} until {self.expires}, and nothing else")
        console.print(
            f"The credential is in {self.file}: hand it over by a safe way. Its owner puts it at the end of"
        )
        console.print(
            f"~/.aws/config and names it: moveout transfer {_granted_url(self.place, self.name)} TARGET",
            markup=False,
        )


def _granted_url(place: str, name: str) -> str:
    return f"{place.partition('?')[0]}?profile={name}"


@verb(group, "create", title="grant create")
def create_command(
    session: Session,
    to: _To,
    expires: Annotated[str, typer.Option(metavar="T", help="2027-01-31T00:00:00Z, or 30d from now.")],
    words: PlaceWord = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the credential goes; grant-NAME.ini unless told."),
    ] = None,
    case: CaseFile = None,
    key: KeyFiles = None,
    passphrase: Passphrase = None,
) -> Created:
    """Let somebody read exactly this bundle, until a day: an account of a MinIO server with a policy of its own.

    The credential is written to a file that only you can read, as a profile for AWS's configuration.
    """
    loaded = load_case(case)
    signer = need_keys(key, passphrase, loaded)[0]
    store, accounts, location = _open(session, known_place(words, loaded))
    grant.check_name(to)
    until = parse_deadline(expires).replace(microsecond=0)
    path = file or Path(f"grant-{to}.ini")
    descriptor = _new_file(path)
    try:
        rules = grant.policy(location.bucket, _prefix(location), until)
        made = grant.create(store, accounts, to, rules, until, signer=signer)
    except BaseException:
        os.close(descriptor)
        path.unlink()
        raise
    text = (
        f"[profile {to}]\nregion = {accounts.region}\nendpoint_url = {accounts.endpoint}\n"
        f"aws_access_key_id = {made.access_key}\naws_secret_access_key = {made.secret_key}\n"
        "s3 =\n    addressing_style = path\n"
    )
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
    return Created(store.place, to, made.access_key, moment_words(until), str(path))


@dataclass(frozen=True, slots=True)
class Linked:
    """A script that fetches a bundle by links, and needs no credential."""

    place: str
    name: str
    file: str
    files: int
    expires: str
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return all but the links."""
        return asdict(self)

    def draw(self, console: Console) -> None:
        """Say how it is used."""
        console.print(
            f"{self.file} fetches the {count_words(self.files)} files of {self.place} until {self.expires}"
        )
        console.print(
            f"Whoever has it can: hand it over by a safe way. Its owner runs: sh {self.file} DIRECTORY"
        )
        console.print(
            "Links cannot be taken back one by one: they end by themselves, or with the key that made them"
        )


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


@verb(group, "links", title="grant links")
def links_command(
    session: Session,
    to: _To,
    expires: Annotated[str, typer.Option(metavar="T", help="At most 7 days from now: 7d.")],
    words: PlaceWord = None,
    *,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the script goes; fetch-NAME.sh unless told.")
    ] = None,
    case: CaseFile = None,
    key: KeyFiles = None,
    passphrase: Passphrase = None,
) -> Linked:
    """Write a script of links, for a server that makes no accounts: curl fetches the bundle, sha256sum checks it."""
    from migrate.store import presigned, s3_client  # noqa: PLC0415  boto3 takes half a second to import

    loaded = load_case(case)
    signer = need_keys(key, passphrase, loaded)[0]
    place = known_place(words, loaded)
    location = s3_client.parse(_need_s3(place), secrets=place.reveal())
    store = open_place(place.url, secrets=place.reveal(), note=session.progress.note)
    grant.check_name(to)
    until = parse_deadline(expires).replace(microsecond=0)
    keys = grant.files_of(store)
    made = list(presigned.links(location, keys, until - datetime.now(UTC)))
    path = file or Path(f"fetch-{to}.sh")
    with os.fdopen(_new_file(path), "w") as out:
        out.write(_SCRIPT.format(expires=moment_words(until)))
        out.writelines(f"get {shlex.quote(name)} {shlex.quote(link)}\n" for name, link in made)
        out.write("sha256sum --strict --quiet -c tagmanifest-sha256.txt manifest-sha256.txt\n")
        out.write('echo "the bundle is whole"\n')
    details = {"to": to, "links": len(made), "expires": until.astimezone(UTC).isoformat()}
    record(store, signer, "granted", details)
    return Linked(store.place, to, str(path), len(made), moment_words(until))


@dataclass(frozen=True, slots=True)
class Grants:
    """All grants of a bundle."""

    place: str
    found: Sequence[Granted]
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return each with its state."""
        return {"place": self.place, "grants": [asdict(one) for one in self.found]}

    def draw(self, console: Console) -> None:
        """Print one a line."""
        for one in self.found:
            console.print(Text(f"{one.name:<24} {one.state:<8} until {one.expires}  {one.access_key}"))
        if not self.found:
            console.print(f"Nobody was granted {self.place}")


@verb(group, "list", title="grant list")
def list_command(session: Session, words: PlaceWord = None, case: CaseFile = None) -> Grants:
    """Print whom the bundle was granted to, and whether each grant is open by now."""
    store, accounts, _ = _open(session, known_place(words, load_case(case)))
    return Grants(store.place, grant.listed(store, accounts))


@dataclass(frozen=True, slots=True)
class Revoked:
    """Grants that are no more."""

    name: str
    keys: Sequence[str]
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return whose, and which keys."""
        return {"to": self.name, "access_keys": list(self.keys)}

    def draw(self, console: Console) -> None:
        """Say so."""
        console.print(f"{self.name} may not read the bundle any more ({', '.join(self.keys)})")


@verb(group, "revoke", title="grant revoke")
def revoke_command(
    session: Session,
    to: _To,
    words: PlaceWord = None,
    *,
    case: CaseFile = None,
    key: KeyFiles = None,
    passphrase: Passphrase = None,
) -> Revoked:
    """Take a grant back at once."""
    loaded = load_case(case)
    signer = need_keys(key, passphrase, loaded)[0]
    store, accounts, _ = _open(session, known_place(words, loaded))
    return Revoked(to, grant.revoke(store, accounts, to, signer))


@dataclass(frozen=True, slots=True)
class Probed:
    """What a granted credential can and cannot do."""

    place: str
    found: Tested

    @property
    def exit_code(self) -> int:
        """6 where it can do too much or too little."""
        return DamageError.exit_code if self.found.findings else OK

    def as_json(self) -> dict[str, Any]:
        """Return what was read and what refused."""
        return {"place": self.place, **asdict(self.found)}

    def draw(self, console: Console) -> None:
        """Say so."""
        found = self.found
        console.print(
            f"{count_words(found.files)} files of {self.place} can be read; {len(found.refused)} other operations"
            " were tried and refused"
        )
        if found.findings:
            draw_findings(console, found.findings)


@verb(group, "test", title="grant test")
def probe_command(
    session: Session,
    words: PlaceWord = None,
    case: CaseFile = None,
    beside: Annotated[
        str, typer.Option(metavar="KEY", help="A key elsewhere in the bucket that must not be readable.")
    ] = "",
) -> Probed:
    """Prove with the granted credential (a place with its profile) that it reads all of the bundle, and can do no more.

    What is tried concerns names that do not exist: it does no harm if it is allowed after all.
    """
    from migrate.store import attempts, s3_client  # noqa: PLC0415  boto3 takes half a second to import

    place = known_place(words, load_case(case))
    store = open_place(place.url, secrets=place.reveal(), note=session.progress.note)
    tried = attempts.forbidden(s3_client.parse(_need_s3(place), secrets=place.reveal()), known=beside)
    workers = session.workers(default=TRANSFER_WORKERS)
    return Probed(store.place, grant.probe(store, tried, workers=workers, progress=session.progress))


def _open(session: Session, place: Endpoint) -> tuple[MultipartStore, Any, Any]:
    from migrate.store import minio_accounts, s3_client  # noqa: PLC0415  boto3 takes half a second to import

    secrets = place.reveal()
    location = s3_client.parse(_need_s3(place), secrets=secrets)
    return (
        open_place(place.url, secrets=secrets, note=session.progress.note),
        minio_accounts.Accounts(location),
        location,
    )


def _need_s3(place: Endpoint) -> str:
    if not place.url.startswith("s3://"):
        raise UsageError(
            f"{place.shown} is no bucket: access to a directory is the operating system's to grant",
            next_step="transfer the bundle to a bucket on a MinIO server, and grant it there",
        )
    return place.url


def _prefix(location: Any) -> str:
    prefix = str(location.prefix)
    return prefix if not prefix or prefix.endswith("/") else prefix + "/"


def _new_file(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise UsageError(
            f"{path} cannot be made: {exc.strerror}", next_step="name another: --file FILE"
        ) from exc

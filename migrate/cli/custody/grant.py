"""``moveout grant``: one customer may read one bundle, until a day."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct

from exporters.structs import as_dict
from migrate.case.model import Endpoint
from migrate.cli import app
from migrate.cli.common.findings import draw_findings
from migrate.cli.common.options import (
    CaseFile,
    CaseFileHere,
    LocationWord,
    case_here,
    known_location,
    moment_to_come,
)
from migrate.cli.common.papers import PageFile, grant_paper, write_page
from migrate.cli.common.session import TRANSFER_WORKERS, Session
from migrate.cli.common.signing_keys import SigningOptions, load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.cli.custody.grant_links import Linked, new_files, write_links
from migrate.custody import grants
from migrate.custody.grants import Granted, Revoked, Tested
from migrate.custody.log.entry import moment_of
from migrate.engines import registry
from migrate.errors import OK, DamageError, IncompleteError, UsageError
from migrate.number_text import moment_words, things
from migrate.storage.api import MultipartStore

group = typer.Typer(help="Give read access to one bundle, for a time.", no_args_is_help=True)
app.add_typer(group, name="grant")

ToName = Annotated[
    str, typer.Option("--to", metavar="NAME", help="Name of the reader: lower-case letters, digits and '-'.")
]
CredentialFile = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="The file for the credential (default: grant-NAME.ini)."),
]
_SOONER = {
    "elsewhere": "a grant of another location: moveout grant revoke THAT LOCATION",
    "session": 'sessions of a role at AWS: IAM, the role, "Revoke sessions" ends all of them (a deny by'
    " aws:TokenIssueTime)",
    "links": "links: disable the key that signed them",
}
"""How what is still open ends sooner, by its state or kind."""


class CreatedGrant(Struct, frozen=True):
    """A grant. The credential is in ``file`` and nowhere else. ``kind`` is account or session."""

    location: str
    name: str
    access_key: str
    expires: str
    file: str
    kind: str = "account"
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return all but the secret."""
        return as_dict(self)

    def draw(self, console: Console) -> None:
        """Print what to hand over, and how it is used."""
        console.print(f"{self.name} may read {self.location} until {self.expires}, and nothing else")
        console.print(
            f"The credential is in {self.file}: send it over a channel that you trust. Its owner puts it at the end of"
            " ~/.aws/config and fetches the bundle:"
        )
        url = shlex.quote(_granted_url(self.location, self.name))
        console.print(f"  moveout transfer {url} DIRECTORY", wrap=False)
        if self.kind == "session":
            console.print("A session ends by itself; whether it can be taken back before is up to the server")


def _granted_url(location: str, name: str) -> str:
    return f"{location.partition('?')[0]}?profile={name}"


@verb(group, "create", title="grant create", examples=("grant create -c case.toml --to acme --expires 7d",))
def create_command(
    session: Session,
    to: ToName,
    expires: Annotated[
        str, typer.Option(metavar="T", help="The end: 2027-01-31T00:00:00Z, or 30d from now.")
    ],
    words: LocationWord = None,
    *,
    file: CredentialFile = None,
    case: CaseFile = None,
    signing: SigningOptions,
    page: PageFile = None,
) -> CreatedGrant:
    """Let somebody read this bundle, by an account of MinIO.

    The account can read this bundle and nothing else, until a day. The credential is written to a file that only
    you can read, as a profile for AWS's configuration.
    """
    grants.check_name(to)
    until = moment_to_come(expires)
    loaded = load_case(case)
    signer = signing.need(loaded)[0]
    store, accounts, s3_location = open_accounts(session, known_location(words, loaded))
    path = file or Path(f"grant-{to}.ini")
    with new_files(path) as (out,):
        rules = grants.policy(s3_location.bucket, s3_location.folder, until)
        granted = grants.create(store, accounts, to, rules, until, signer=signer)
        out.write(_profile(to, accounts.region, accounts.endpoint, granted.access_key, granted.secret_key))
    if page is not None:
        write_page(
            page, grant_paper(store.location, to, [("Access key", granted.access_key)], until, signer.public)
        )
    return CreatedGrant(store.location, to, granted.access_key, moment_words(until), str(path))


@verb(
    group,
    "session",
    title="grant session",
    examples=("grant session -c case.toml --to acme --expires 12h --role ARN",),
)
def session_command(
    session: Session,
    to: ToName,
    expires: Annotated[
        str,
        typer.Option(
            metavar="T", help="The end, for example 12h from now: the most that a role of AWS allows."
        ),
    ],
    words: LocationWord = None,
    *,
    role: Annotated[str, typer.Option(metavar="ARN", help="AWS only: the role of the session.")] = "",
    file: CredentialFile = None,
    case: CaseFile = None,
    signing: SigningOptions,
    page: PageFile = None,
) -> CreatedGrant:
    """Let somebody read this bundle, by a session of AWS.

    The session can read this bundle and nothing else, and ends by itself. AWS cannot revoke a single session, so
    use a separate role for each grant. MinIO has sessions, too.
    """
    from migrate.storage.s3.access import sts_sessions  # noqa: PLC0415  boto3 takes half a second to import

    grants.check_name(to)
    until = moment_to_come(expires)
    loaded = load_case(case)
    signer = signing.need(loaded)[0]
    store, accounts, s3_location = open_accounts(session, known_location(words, loaded))
    service = sts_sessions.TokenService(s3_location)
    path = file or Path(f"grant-{to}.ini")
    with new_files(path) as (out,):
        rules = grants.policy(s3_location.bucket, s3_location.folder, until)
        granted = grants.begin(
            store, service, to, rules, until, account=accounts.user, role=role, signer=signer
        )
        endpoint = "" if service.is_aws else accounts.endpoint
        out.write(
            _profile(
                to, accounts.region, endpoint, granted.access_key, granted.secret_key, token=granted.token
            )
        )
    if page is not None:
        way = [
            ("Access key of the session", granted.access_key),
            ("Taken back", "it ends by itself; at AWS no session can be ended alone"),
        ]
        write_page(page, grant_paper(store.location, to, way, until, signer.public))
    return CreatedGrant(
        store.location, to, granted.access_key, moment_words(until), str(path), kind="session"
    )


@verb(group, "links", title="grant links", examples=("grant links -c case.toml --to acme --expires 7d",))
def links_command(
    session: Session,
    to: ToName,
    expires: Annotated[str, typer.Option(metavar="T", help="The end, at most 7d from now.")],
    words: LocationWord = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The script (default: fetch-NAME.sh). List and page are written next to it.",
        ),
    ] = None,
    case: CaseFile = None,
    signing: SigningOptions,
    page: PageFile = None,
) -> Linked:
    """Let somebody read this bundle, by links.

    For servers that cannot create accounts. Writes a script for curl, a list for aria2, and a page with the links.
    """
    grants.check_name(to)
    until = moment_to_come(expires)
    loaded = load_case(case)
    signer = signing.need(loaded)[0]
    location = known_location(words, loaded)
    need_s3(location)
    linked = write_links(session, location, file or Path(f"fetch-{to}.sh"), signer, to=to, until=until)
    if page is not None:
        way = [
            ("Links", f"to {things(linked.files, 'file')}, in {linked.file}"),
            ("Taken back", "they end by themselves, or with the key that made them"),
        ]
        write_page(page, grant_paper(linked.location, to, way, until, signer.public))
    return linked


class Grants(Struct, frozen=True):
    """All grants of a bundle."""

    location: str
    grants: Sequence[Granted]
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return each with its state."""
        return {"location": self.location, "grants": [as_dict(grant_) for grant_ in self.grants]}

    def draw(self, console: Console) -> None:
        """Print one a line."""
        for entry in self.grants:
            console.print(Text(plain(f"{entry.name:<16} {entry.state:<9} {_words(entry)}")))
        if not self.grants:
            console.print(f"Nobody was granted {self.location}")


def _words(entry: Granted) -> str:
    """Return what was granted until when, by which key, and where, if that is another location."""
    key = f"  {entry.access_key}" if entry.access_key != entry.kind else ""
    elsewhere = f"  at {entry.location}" if entry.state == "elsewhere" else ""
    until = moment_words(moment) if (moment := moment_of(entry.expires)) else entry.expires
    return f"{entry.kind:<8} until {until}{key}{elsewhere}"


@verb(group, "list", title="grant list", examples=("grant list -c case.toml",))
def list_command(session: Session, words: LocationWord = None, case: CaseFileHere = None) -> Grants:
    """List the grants of a bundle, and which are open."""
    loaded = load_case(case_here(case, words))
    store, accounts, _ = open_accounts(session, known_location(words, loaded))
    return Grants(store.location, grants.listed(store, accounts, trust=load_trust(None, loaded)))


class RevokedGrants(Struct, frozen=True):
    """Grants that are no more, and those that end by themselves only."""

    name: str
    done: Revoked

    @property
    def exit_code(self) -> int:
        """3 where some grant is still open."""
        return IncompleteError.exit_code if self.done.still_open else OK

    def as_json(self) -> dict[str, Any]:
        """Return the name, the keys that were revoked, and the grants that are still open."""
        still_open = [as_dict(grant_) for grant_ in self.done.still_open]
        return {
            "to": self.name,
            "access_keys": list(self.done.keys),
            "open": still_open,
            "why": self.done.why,
        }

    def draw(self, console: Console) -> None:
        """Print the result."""
        if self.done.keys:
            keys = ", ".join(self.done.keys)
            console.print(Text(plain(f"These keys of {self.name} read nothing any more: {keys}")))
        if not self.done.still_open:
            console.print(f"{self.name} may not read the bundle any more")
            return
        console.print(Text(f"{self.name} MAY STILL READ the bundle:", style="bold red"))
        for entry in self.done.still_open:
            console.print(Text(plain(f"  {_words(entry)}")))
        if self.done.why:
            console.print(Text(self.done.why))
        present = {word for entry in self.done.still_open for word in (entry.state, entry.kind)}
        for word, line in _SOONER.items():
            if word in present:
                console.print(Text(f"→ {line}"))


@verb(group, "revoke", title="grant revoke", examples=("grant revoke -c case.toml --to acme",))
def revoke_command(
    session: Session,
    to: ToName,
    words: LocationWord = None,
    *,
    case: CaseFile = None,
    signing: SigningOptions,
) -> RevokedGrants:
    """Revoke a grant at once, as far as the server can.

    If something cannot be revoked, it is named, and the exit code is 3. Accounts are removed. Sessions of MinIO end
    at once; at AWS the owner of the role can end all its sessions together. Links end with the key that signed
    them.
    """
    loaded = load_case(case)
    signer = signing.need(loaded)[0]
    store, accounts, _ = open_accounts(session, known_location(words, loaded))
    return RevokedGrants(to, grants.revoke(store, accounts, to, signer, load_trust(None, loaded)))


class Probed(Struct, frozen=True):
    """What a granted credential can and cannot do."""

    location: str
    tested: Tested

    @property
    def exit_code(self) -> int:
        """6 where it can do too much or too little."""
        return DamageError.exit_code if self.tested.findings else OK

    def as_json(self) -> dict[str, Any]:
        """Return the counts of files read and of operations refused."""
        return {"location": self.location, **as_dict(self.tested)}

    def draw(self, console: Console) -> None:
        """Print the result."""
        tested = self.tested
        console.print(
            f"{things(tested.files, 'file')} of {self.location} can be read; {len(tested.refused)} other operations"
            " were tried and refused"
        )
        if tested.findings:
            draw_findings(console, tested.findings)


@verb(
    group,
    "test",
    title="grant test",
    workers=True,
    examples=('grant test "s3://preserved/app?profile=acme"',),
)
def probe_command(
    session: Session,
    words: LocationWord = None,
    case: CaseFile = None,
    outside: Annotated[
        str, typer.Option(metavar="KEY", help="A key outside of the bundle that must not be readable.")
    ] = "",
) -> Probed:
    """Prove that a grant reads the bundle, and does no more.

    Give the location with the profile of the grant. Forbidden requests are tried on names that do not exist, so
    they do no harm if they are allowed.
    """
    from migrate.storage.s3 import client  # noqa: PLC0415  boto3 takes half a second to import
    from migrate.storage.s3.access import permission_probe  # noqa: PLC0415  boto3 takes half a second to import

    location = known_location(words, load_case(case))
    store = session.store(location)
    tried = permission_probe.forbidden(
        client.parse(need_s3(location), secrets=location.reveal()), known=outside
    )
    workers = session.workers(default=TRANSFER_WORKERS)
    return Probed(store.location, grants.probe(store, tried, workers=workers, progress=session.progress))


def open_accounts(session: Session, location: Endpoint) -> tuple[MultipartStore, Any, Any]:
    """Return the store, the accounts of its server, and the parsed S3 location. Raises ``UsageError``."""
    from migrate.storage.s3 import client  # noqa: PLC0415  boto3 takes half a second to import
    from migrate.storage.s3.access import minio_accounts  # noqa: PLC0415  boto3 takes half a second to import

    s3_location = client.parse(need_s3(location), secrets=location.reveal())
    return session.store(location), minio_accounts.Accounts(s3_location), s3_location


def need_s3(location: Endpoint) -> str:
    """Return the URL of a location in a bucket. Raises ``UsageError`` for any other."""
    if not registry.holds_objects(location.url):
        raise UsageError(
            f"{location.shown} is not a bucket: access to a directory is the operating system's to grant",
            next_step="transfer the bundle to a bucket on a MinIO server, and grant it there",
        )
    return location.url


def _profile(
    name: str, region: str, endpoint: str, access_key: str, secret_key: str, *, token: str = ""
) -> bytes:
    lines = [f"[profile {name}]", f"region = {region}"]
    lines += [f"endpoint_url = {endpoint}"] if endpoint else []
    lines += [f"aws_access_key_id = {access_key}", f"aws_secret_access_key = {secret_key}"]
    lines += [f"aws_session_token = {token}"] if token else []
    lines += ["s3 =", "    addressing_style = path"] if endpoint else []
    return "".join(f"{line}\n" for line in lines).encode()

"""``moveout grant create``, ``session`` and ``links``: the three ways to let somebody read one bundle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from migrate.case.model import Endpoint
from migrate.cli import app
from migrate.cli.common.link_files import Linked, new_files, write_links
from migrate.cli.common.options import CaseFile, known_location, moment_to_come
from migrate.cli.common.session import Session, verb
from migrate.cli.common.signing_keys import KeyFiles, Passphrase, need_keys
from migrate.cli.common.sources import load_case
from migrate.cli.hold import LocationWord
from migrate.custody.grant import grant
from migrate.engines import registry
from migrate.errors import OK, UsageError
from migrate.number_text import moment_words
from migrate.storage.api import MultipartStore

group = typer.Typer(help="Read access to one bundle, for a time.", no_args_is_help=True)
app.add_typer(group, name="grant")

ToName = Annotated[
    str, typer.Option("--to", metavar="NAME", help="Whom: lower-case letters, digits and '-'.")
]
CredentialFile = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="Where the credential goes; grant-NAME.ini unless told."),
]


@dataclass(frozen=True, slots=True)
class Created:
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
        return asdict(self)

    def draw(self, console: Console) -> None:
        """Say what to hand over, and how it is used."""
        console.print(f"{self.name} may read {self.location} until {self.expires}, and nothing else")
        console.print(
            f"The credential is in {self.file}: hand it over by a safe way. Its owner puts it at the end of"
        )
        console.print(
            f"~/.aws/config and names it: moveout transfer {_granted_url(self.location, self.name)} DESTINATION",
        )
        if self.kind == "session":
            console.print("A session ends by itself; whether it can be taken back before is up to the server")


def _granted_url(location: str, name: str) -> str:
    return f"{location.partition('?')[0]}?profile={name}"


@verb(group, "create", title="grant create")
def create_command(
    session: Session,
    to: ToName,
    expires: Annotated[str, typer.Option(metavar="T", help="2027-01-31T00:00:00Z, or 30d from now.")],
    words: LocationWord = None,
    *,
    file: CredentialFile = None,
    case: CaseFile = None,
    key: KeyFiles = None,
    passphrase: Passphrase = None,
) -> Created:
    """Let somebody read this bundle, by an account of MinIO.

    Exactly this bundle, until a day: the account has a policy of its own. The credential is written to a file that only
    you can read, as a profile for AWS's configuration.
    """
    grant.check_name(to)
    until = moment_to_come(expires)
    loaded = load_case(case)
    signer = need_keys(key, passphrase, loaded)[0]
    store, accounts, s3_location = open_accounts(session, known_location(words, loaded))
    path = file or Path(f"grant-{to}.ini")
    with new_files(path) as (out,):
        rules = grant.policy(s3_location.bucket, s3_location.folder, until)
        made = grant.create(store, accounts, to, rules, until, signer=signer)
        out.write(_profile(to, accounts.region, accounts.endpoint, made.access_key, made.secret_key))
    return Created(store.location, to, made.access_key, moment_words(until), str(path))


@verb(group, "session", title="grant session")
def session_command(
    session: Session,
    to: ToName,
    expires: Annotated[str, typer.Option(metavar="T", help="A role of AWS allows at most 12h: 12h.")],
    words: LocationWord = None,
    *,
    role: Annotated[
        str, typer.Option(metavar="ARN", help="Of which role at AWS; MinIO takes the account itself.")
    ] = "",
    file: CredentialFile = None,
    case: CaseFile = None,
    key: KeyFiles = None,
    passphrase: Passphrase = None,
) -> Created:
    """Let somebody read this bundle, by a session of AWS.

    Exactly this bundle, by a session at AWS's token service (or MinIO's) with a policy of its own. A session ends by
    itself. At AWS no single one can be taken back: use a role of its own for each grant.
    """
    from migrate.storage.s3.access import sts_sessions  # noqa: PLC0415  boto3 takes half a second to import

    grant.check_name(to)
    until = moment_to_come(expires)
    loaded = load_case(case)
    signer = need_keys(key, passphrase, loaded)[0]
    store, accounts, s3_location = open_accounts(session, known_location(words, loaded))
    service = sts_sessions.TokenService(s3_location)
    path = file or Path(f"grant-{to}.ini")
    with new_files(path) as (out,):
        rules = grant.policy(s3_location.bucket, s3_location.folder, until)
        made = grant.begin(store, service, to, rules, until, account=accounts.user, role=role, signer=signer)
        endpoint = "" if service.is_aws else accounts.endpoint
        out.write(_profile(to, accounts.region, endpoint, made.access_key, made.secret_key, token=made.token))
    return Created(store.location, to, made.access_key, moment_words(until), str(path), kind="session")


@verb(group, "links", title="grant links")
def links_command(
    session: Session,
    to: ToName,
    expires: Annotated[str, typer.Option(metavar="T", help="At most 7 days from now: 7d.")],
    words: LocationWord = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where the script goes; fetch-NAME.sh unless told. List and page go beside."
        ),
    ] = None,
    case: CaseFile = None,
    key: KeyFiles = None,
    passphrase: Passphrase = None,
) -> Linked:
    """Let somebody read this bundle, by links.

    For a server that makes no accounts: a script for curl, a list for aria2, and a page for people.
    """
    grant.check_name(to)
    until = moment_to_come(expires)
    loaded = load_case(case)
    signer = need_keys(key, passphrase, loaded)[0]
    location = known_location(words, loaded)
    need_s3(location)
    return write_links(session, location, file or Path(f"fetch-{to}.sh"), signer, to=to, until=until)


def open_accounts(session: Session, location: Endpoint) -> tuple[MultipartStore, Any, Any]:
    """Return the store, the accounts of its server, and the location as a location. Raises ``UsageError``."""
    from migrate.storage.s3 import client  # noqa: PLC0415  boto3 takes half a second to import
    from migrate.storage.s3.access import minio_accounts  # noqa: PLC0415  boto3 takes half a second to import

    s3_location = client.parse(need_s3(location), secrets=location.reveal())
    return session.store(location), minio_accounts.Accounts(s3_location), s3_location


def need_s3(location: Endpoint) -> str:
    """Return the URL of a location in a bucket. Raises ``UsageError`` for any other."""
    engine = registry.find(location.url)
    if engine is None or engine.contents != "objects":
        raise UsageError(
            f"{location.shown} is no bucket: access to a directory is the operating system's to grant",
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

"""``moveout grant``: one customer may read one bundle, until a day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from migrate.cli.common.findings import draw_findings
from migrate.cli.common.options import CaseFile, known_location
from migrate.cli.common.session import TRANSFER_WORKERS, Session, verb
from migrate.cli.common.signing_keys import KeyFiles, Passphrase, need_keys
from migrate.cli.common.sources import load_case
from migrate.cli.grant_create import ToName, group, need_s3, open_accounts
from migrate.cli.hold import LocationWord
from migrate.custody.grant import grant, made_grants
from migrate.custody.grant.grant import Tested
from migrate.custody.grant.made_grants import Granted, Revoked
from migrate.errors import OK, DamageError, IncompleteError
from migrate.number_text import count_words

_SOONER = {
    "elsewhere": "a grant of another location: moveout grant revoke THAT LOCATION",
    "session": 'sessions of a role at AWS: IAM, the role, "Revoke sessions" ends all of them (a deny by'
    " aws:TokenIssueTime)",
    "links": "links: disable the key that signed them",
}
"""How what is still open ends sooner, by its state or kind."""


@dataclass(frozen=True, slots=True)
class Grants:
    """All grants of a bundle."""

    location: str
    found: Sequence[Granted]
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return each with its state."""
        return {"location": self.location, "grants": [asdict(one) for one in self.found]}

    def draw(self, console: Console) -> None:
        """Print one a line."""
        for one in self.found:
            where = f"  {one.location}" if one.state == "elsewhere" else ""
            line = f"{one.name:<24} {one.state:<9} {one.kind:<8} until {one.expires}  {one.access_key}{where}"
            console.print(Text(line))
        if not self.found:
            console.print(f"Nobody was granted {self.location}")


@verb(group, "list", title="grant list")
def list_command(session: Session, words: LocationWord = None, case: CaseFile = None) -> Grants:
    """Print whom the bundle was granted to, and what is open."""
    store, accounts, _ = open_accounts(session, known_location(words, load_case(case)))
    return Grants(store.location, made_grants.listed(store, accounts))


@dataclass(frozen=True, slots=True)
class TakenBack:
    """Grants that are no more, and those that end by themselves only."""

    name: str
    done: Revoked

    @property
    def exit_code(self) -> int:
        """3 where some grant is still open."""
        return IncompleteError.exit_code if self.done.still_open else OK

    def as_json(self) -> dict[str, Any]:
        """Return whose, which keys, and what is still open."""
        still_open = [asdict(one) for one in self.done.still_open]
        return {
            "to": self.name,
            "access_keys": list(self.done.keys),
            "open": still_open,
            "why": self.done.why,
        }

    def draw(self, console: Console) -> None:
        """Say so."""
        if self.done.keys:
            console.print(f"These keys of {self.name} read nothing any more: {', '.join(self.done.keys)}")
        if not self.done.still_open:
            console.print(f"{self.name} may not read the bundle any more")
            return
        console.print(Text(f"{self.name} MAY STILL READ the bundle, until:", style="bold red"))
        for one in self.done.still_open:
            where = f"  at {one.location}" if one.state == "elsewhere" else ""
            console.print(Text(f"  {one.expires}  {one.kind}  {one.access_key}{where}"))
        if self.done.why:
            console.print(Text(self.done.why))
        there = {word for one in self.done.still_open for word in (one.state, one.kind)}
        for word, line in _SOONER.items():
            if word in there:
                console.print(Text(f"→ {line}"))


@verb(group, "revoke", title="grant revoke")
def revoke_command(
    session: Session,
    to: ToName,
    words: LocationWord = None,
    *,
    case: CaseFile = None,
    key: KeyFiles = None,
    passphrase: Passphrase = None,
) -> TakenBack:
    """Take a grant back at once, as far as the server can.

    What it cannot is named, and the exit code is 3. Accounts are removed. Sessions end at once on MinIO; at AWS a
    role's sessions end together, by the role's owner. Links end with the key that signed them.
    """
    loaded = load_case(case)
    signer = need_keys(key, passphrase, loaded)[0]
    store, accounts, _ = open_accounts(session, known_location(words, loaded))
    return TakenBack(to, made_grants.revoke(store, accounts, to, signer))


@dataclass(frozen=True, slots=True)
class Probed:
    """What a granted credential can and cannot do."""

    location: str
    found: Tested

    @property
    def exit_code(self) -> int:
        """6 where it can do too much or too little."""
        return DamageError.exit_code if self.found.findings else OK

    def as_json(self) -> dict[str, Any]:
        """Return what was read and what refused."""
        return {"location": self.location, **asdict(self.found)}

    def draw(self, console: Console) -> None:
        """Say so."""
        found = self.found
        console.print(
            f"{count_words(found.files)} files of {self.location} can be read; {len(found.refused)} other operations"
            " were tried and refused"
        )
        if found.findings:
            draw_findings(console, found.findings)


@verb(group, "test", title="grant test", workers=True)
def probe_command(
    session: Session,
    words: LocationWord = None,
    case: CaseFile = None,
    beside: Annotated[
        str, typer.Option(metavar="KEY", help="A key elsewhere in the bucket that must not be readable.")
    ] = "",
) -> Probed:
    """Prove that a grant reads the bundle, and does no more.

    With the granted credential: a location with its profile. What is tried concerns names that do not exist: it does no
    harm if it is allowed after all.
    """
    from migrate.storage.s3 import client  # noqa: PLC0415  boto3 takes half a second to import
    from migrate.storage.s3.access import permission_probe  # noqa: PLC0415  boto3 takes half a second to import

    location = known_location(words, load_case(case))
    store = session.store(location)
    tried = permission_probe.forbidden(
        client.parse(need_s3(location), secrets=location.reveal()), known=beside
    )
    workers = session.workers(default=TRANSFER_WORKERS)
    return Probed(store.location, grant.probe(store, tried, workers=workers, progress=session.progress))

"""What a case file says of one move, as values. ``migrate.case.loader`` reads it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct, field

from exporters.discovery import NotTaken
from exporters.engine import Engine
from exporters.errors import SourceError
from exporters.limits import Limits
from exporters.selection import EVERYTHING, Selection
from migrate.case.secrets import CUSTOMER_KEY, Secret, redact
from migrate.case.server_url import check_url
from migrate.engines import registry


class Rank(Struct, frozen=True):
    """How much a source matters where not everything leaves in time. A smaller ``priority`` goes first; within one, the
    sources go whose ``value`` is the largest for the time they take. None where the case file does not say.
    """

    priority: int | None = None
    value: float | None = None


class Endpoint(Struct, frozen=True):
    """A URL and the secrets that open it, by the names that its engine has for them. A source also has the customer's
    own key (``CUSTOMER_KEY``), the selection of its items, a report by which they are counted once more, and whether it
    may be empty.
    """

    url: str
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    selection: Selection = EVERYTHING
    inventory: str | None = None
    may_be_empty: bool = False
    """Whether it is no surprise that there is nothing in it: a whole server was asked for."""
    follow: bool = False
    """Whether what is written to it after its snapshot is followed."""
    retain_bytes: int | None = None
    """How much of its log its server may keep for that; None: any number."""
    create: bool = False
    """Whether it is made where it is missing: it is the place of a source on a server to which all of another moves."""
    error: SourceError | None = None
    """Why it cannot be opened: its server could not be listed."""
    rank: Rank = field(default_factory=Rank)

    def __post_init__(self) -> None:
        check_url(self.url)

    @property
    def shown(self) -> str:
        """The URL as it may be printed: without a password, should somebody have written one into it."""
        return redact(self.url)

    @property
    def engine(self) -> Engine:
        """What its URL is of. Raises ``UsageError`` where no engine has its scheme."""
        return registry.engine_for(self.url, self.shown)

    def reveal(self) -> dict[str, str]:
        """Return the secrets' values by name."""
        return {
            name: secret.reveal_key() if name == CUSTOMER_KEY else secret.reveal()
            for name, secret in self.secrets.items()
        }


class Notify(Struct, frozen=True):
    """Who is notified of a run: a program gets each event as JSON on its standard input, a URL gets it by POST."""

    command: str = ""
    url: str = ""


class Custody(Struct, frozen=True):
    """Who signs, and whose signatures count. ``timestamp`` is the URL of an authority (RFC 3161);
    ``signers`` an ``allowed_signers`` file; ``release_keys`` the fingerprints of which ``release_quorum``
    must sign to end a hold.
    """

    key: Path | None = None
    passphrase: Secret | None = None
    timestamp: str | None = None
    signers: Path | None = None
    release_keys: tuple[str, ...] = ()
    release_quorum: int = 1


class ServerMove(Struct, frozen=True):
    """Everything of one server goes to another one, under the names that it has. ``new`` is None until somebody has
    written its address into the case file.
    """

    old: str
    new: Endpoint | None


class LeftOut(Struct, frozen=True):
    """What stays behind on purpose: a URL, which may be a pattern, and why."""

    url: str
    reason: str


class Case(Struct, frozen=True):
    """One move. ``sources`` and ``destinations`` map a source's name to where it comes from and goes to. The URL of a
    source may be a pattern (``migrate.case.server_url``); one without a name of its own stands under its URL.
    """

    name: str
    deadline: datetime | None
    sources: Mapping[str, Endpoint]
    bundle: Endpoint | None
    transfer_to: Endpoint | None
    destinations: Mapping[str, Endpoint]
    workers: int | None = None
    bwlimit: str | None = None
    limits: Limits = field(default_factory=Limits)
    custody: Custody = field(default_factory=Custody)
    reserve_seconds: float | None = None
    """How long before the deadline the bundle is sealed, complete or not."""
    notify: Notify | None = None
    moves: Sequence[ServerMove] = ()
    left_out: Sequence[LeftOut] = ()
    not_taken: Sequence[NotTaken] = ()
    servers: Sequence[Endpoint] = ()
    """Which servers, accounts and directories ``discover`` asks."""
    deadline_is_local: bool = False
    """Whether the deadline names no time zone, and was taken as this machine's."""
    file: str = "moveout.toml"
    """The path of the case file, as it was named."""

    @property
    def option(self) -> str:
        """The option that names the case file, to be typed in a shell."""
        return f"-c {shlex.quote(self.file)}"

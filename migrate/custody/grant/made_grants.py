"""Grants that were made: what became of each by the custody log and the server, and how they are taken back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from migrate.custody.grant import grant
from migrate.custody.log import custody_log
from migrate.custody.log.custody_log import Log
from migrate.custody.log.entry import Entry, Happening
from migrate.custody.signing.keys import Signer
from migrate.errors import GoneError, MoveoutError, NotAllowedError, UnreachableError, UsageError
from migrate.storage.api import Store
from migrate.storage.s3.access.minio_accounts import Accounts

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant that the custody log knows, and what became of it by now. ``kind`` is account, session or links;
    ``state`` open, expired, revoked, or elsewhere: it is of ``location``, where the bundle lay, and to be asked and
    ended
    there.
    """

    name: str
    access_key: str
    expires: str
    state: str
    kind: str = "account"
    location: str = ""

    @property
    def end(self) -> datetime:
        """When it ends by itself; what cannot be read says that it never does."""
        try:
            end = datetime.fromisoformat(self.expires)
        except ValueError:
            return _NEVER
        return end if end.tzinfo else end.replace(tzinfo=UTC)


def listed(store: Store, accounts: Accounts, *, now: datetime | None = None) -> list[Granted]:
    """Return every grant that the log knows, with what the server says of it now; of sessions and links servers say
    nothing.
    """
    now = now or datetime.now(UTC)
    known = custody_log.read(store)
    here, ended = known.at(store.location, "granted"), _ended(known)
    found = []
    for one in known.find("granted"):
        this = _granted(one)
        if this.end <= now:
            state = "expired"
        elif this.kind == "account" and one in here:
            state = "open" if _is_open(accounts, this) else "revoked"
        elif this.access_key in ended:
            state = "revoked"
        else:
            state = "open" if one in here else "elsewhere"
        found.append(replace(this, state=state))
    return found


def _granted(one: Entry) -> Granted:
    details = one.what.details
    kind = "links" if "access_key" not in details else "session" if details.get("session") else "account"
    access, expires = str(details.get("access_key", "links")), str(details.get("expires"))
    return Granted(str(details.get("to")), access, expires, "open", kind, one.what.location)


def _ended(known: Log) -> set[str]:
    return {str(one.what.details.get("access_key")) for one in known.find("revoked")}


@dataclass(frozen=True, slots=True)
class Revoked:
    """Access keys that are good for nothing any more, and grants that nobody can take back here, each with the
    reason.
    """

    keys: Sequence[str]
    still_open: Sequence[Granted]
    why: str = ""


def revoke(store: Store, accounts: Accounts, name: str, signer: Signer) -> Revoked:
    """Take back every grant of that name as far as the server can, and write it into the log. An account that a run
    made that died before it could write it down goes too: nobody has its secret.

    Raises ``GoneError`` where no grant has this name.
    """
    now = datetime.now(UTC)
    known = custody_log.read(store)
    entries = [one for one in known.find("granted") if one.what.details.get("to") == name]
    lost = _unwritten(accounts, known, store.location, name)
    if not entries and not lost:
        raise GoneError(
            f"no grant to {name!r} is in the custody log", next_step="moveout grant list LOCATION"
        )
    here, ended = known.at(store.location, "granted"), _ended(known)
    sessions = [one for one in entries if one in here and _granted(one).kind == "session"]
    why = _end_sessions(accounts, name, sessions)
    keys: list[str] = []
    still_open: list[Granted] = []
    for one in entries:
        this = _granted(one)
        if one not in here or this.kind == "links" or (this.kind == "session" and why):
            if this.end > now and this.access_key not in ended:
                still_open.append(this if one in here else replace(this, state="elsewhere"))
            continue
        if this.kind == "account" and not _remove(accounts, this):
            still_open.append(this)
            continue
        details = {"to": name, "access_key": this.access_key}
        what = Happening("revoked", one.what.bundle, one.what.root, store.location, details)
        custody_log.append(store, signer, custody_log.once(what))
        keys.append(this.access_key)
    for access_key in lost:
        accounts.remove(access_key)
    return Revoked([*keys, *lost], still_open, why)


def _unwritten(accounts: Accounts, known: Log, location: str, name: str) -> list[str]:
    """Return the access keys of accounts for this grant that the log does not know, as far as the server tells."""
    written = {str(one.what.details.get("access_key")) for one in known.find("granted")}
    found: list[str] = []
    with suppress(NotAllowedError, UsageError, GoneError):
        for bundle in sorted({one.what.bundle for one in known.entries}):
            found += accounts.of(grant.purpose(location, bundle, name))
    return [one for one in found if one not in written]


def _remove(accounts: Accounts, this: Granted) -> bool:
    """Remove a grant's account; tell whether there is none any more. A log may come from anywhere, and name any: an
    account of another name is no grant's, and stays.
    """
    if _is_open(accounts, this):
        accounts.remove(this.access_key)
        return True
    return accounts.find(this.access_key) is None


def _is_open(accounts: Accounts, this: Granted) -> bool:
    found = accounts.find(this.access_key)
    return found is not None and found.name == this.name


def _end_sessions(accounts: Accounts, name: str, sessions: Sequence[Entry]) -> str:
    """End the sessions of a grant; return why that is not possible, if it is not. Only MinIO can, and only the account
    that began them.
    """
    others = {str(one.what.details.get("by_access_key")) for one in sessions} - {accounts.user}
    if others:
        return f"sessions are ended by the account that began them ({', '.join(sorted(others))})"
    try:
        for known_by in sorted({_known_by(one, name) for one in sessions}):
            accounts.end_sessions(known_by)
    except UnreachableError:
        raise
    except MoveoutError as exc:
        return f"this server ends no single session: {exc}"
    return ""


def _known_by(session: Entry, name: str) -> str:
    """Return what MinIO knows a session by; those of the first days had a shorter name."""
    return str(session.what.details.get("revocation") or f"moveout-{session.what.bundle}-{name}")

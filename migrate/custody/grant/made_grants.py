"""Grants that were made: what became of each by the custody log and the server, and how they are taken back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from migrate.custody.grant import grant
from migrate.custody.log import custody_log
from migrate.custody.log.custody_log import Log
from migrate.custody.log.entry import CustodyEvent, LogEntry, moment_of
from migrate.custody.signing.keys import Signer
from migrate.errors import GoneError, MoveoutError, NotAllowedError, UnreachableError, UsageError
from migrate.storage.api import Store
from migrate.storage.s3.access.minio_accounts import Accounts

_NEVER = datetime.max.replace(tzinfo=UTC)


class Granted(Struct, frozen=True):
    """A grant that the custody log records, and what became of it by now. ``kind`` is account, session or links;
    ``state`` open, expired, revoked, or elsewhere: it is of ``location``, where the bundle lay, and to be asked and
    ended there.
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
        return moment_of(self.expires) or _NEVER


def listed(store: Store, accounts: Accounts, *, now: datetime | None = None) -> list[Granted]:
    """Return every grant that the log records, with what the server says of it now; of sessions and links servers say
    nothing.
    """
    now = now or datetime.now(UTC)
    known = custody_log.read(store)
    entries_here, ended_keys = known.at(store.location, "granted"), _ended(known)
    grants = []
    for entry in known.find("granted"):
        grant_ = _granted(entry)
        if grant_.end <= now:
            state = "expired"
        elif grant_.kind == "account" and entry in entries_here:
            state = "open" if _is_open(accounts, grant_) else "revoked"
        elif grant_.access_key in ended_keys:
            state = "revoked"
        else:
            state = "open" if entry in entries_here else "elsewhere"
        grants.append(replace(grant_, state=state))
    return grants


def _granted(entry: LogEntry) -> Granted:
    details = entry.what.details
    kind = "links" if "access_key" not in details else "session" if details.get("session") else "account"
    access, expires = str(details.get("access_key", "links")), str(details.get("expires"))
    return Granted(str(details.get("to")), access, expires, "open", kind, entry.what.location)


def _ended(known: Log) -> set[str]:
    return {str(entry.what.details.get("access_key")) for entry in known.find("revoked")}


def outlasting(store: Store, root: str) -> list[Granted]:
    """Return grants of bundles that were erased at a location which are open, by the log alone: they would read the
    bundle of ``root``, too, if it came there, and it is another one.
    """
    log, now = custody_log.read(store), datetime.now(UTC)
    erased = max((entry.number for entry in log.at(store.location, "erased")), default=0)
    ended_keys = _ended(log)
    grants = [
        _granted(entry)
        for entry in log.at(store.location, "granted")
        if entry.number < erased and entry.what.root != root
    ]
    return [grant_ for grant_ in grants if grant_.end > now and grant_.access_key not in ended_keys]


class Revoked(Struct, frozen=True):
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
    entries = [entry for entry in known.find("granted") if entry.what.details.get("to") == name]
    unrecorded_keys = _unwritten(accounts, known, store.location, name)
    if not entries and not unrecorded_keys:
        raise GoneError(
            f"no grant to {name!r} is in the custody log", next_step="moveout grant list LOCATION"
        )
    entries_here, ended_keys = known.at(store.location, "granted"), _ended(known)
    sessions = [entry for entry in entries if entry in entries_here and _granted(entry).kind == "session"]
    failure = _end_sessions(accounts, name, sessions)
    keys: list[str] = []
    still_open: list[Granted] = []
    for entry in entries:
        grant_ = _granted(entry)
        if entry not in entries_here or grant_.kind == "links" or (grant_.kind == "session" and failure):
            if grant_.end > now and grant_.access_key not in ended_keys:
                still_open.append(grant_ if entry in entries_here else replace(grant_, state="elsewhere"))
            continue
        if grant_.kind == "account" and not _remove(accounts, grant_):
            still_open.append(grant_)
            continue
        details = {"to": name, "access_key": grant_.access_key}
        event = CustodyEvent("revoked", entry.what.bundle, entry.what.root, store.location, details)
        custody_log.append(store, signer, custody_log.once(event))
        keys.append(grant_.access_key)
    for access_key in unrecorded_keys:
        accounts.remove(access_key)
    return Revoked([*keys, *unrecorded_keys], still_open, failure)


def _unwritten(accounts: Accounts, known: Log, location: str, name: str) -> list[str]:
    """Return the access keys of accounts for this grant that the log does not know, as far as the server tells."""
    written = {str(entry.what.details.get("access_key")) for entry in known.find("granted")}
    access_keys: list[str] = []
    with suppress(NotAllowedError, UsageError, GoneError):
        for bundle in sorted({entry.what.bundle for entry in known.entries}):
            access_keys += accounts.of(grant.purpose(location, bundle, name))
    return [entry for entry in access_keys if entry not in written]


def _remove(accounts: Accounts, grant_: Granted) -> bool:
    """Remove a grant's account; tell whether there is none any more. A log may come from anywhere, and name any: an
    account of another name is no grant's, and stays.
    """
    if _is_open(accounts, grant_):
        accounts.remove(grant_.access_key)
        return True
    return accounts.find(grant_.access_key) is None


def _is_open(accounts: Accounts, grant_: Granted) -> bool:
    account = accounts.find(grant_.access_key)
    return account is not None and account.name == grant_.name


def _end_sessions(accounts: Accounts, name: str, sessions: Sequence[LogEntry]) -> str:
    """End the sessions of a grant; return why that is not possible, if it is not. Only MinIO can, and only the account
    that began them.
    """
    other_accounts = {str(session.what.details.get("by_access_key")) for session in sessions} - {
        accounts.user
    }
    if other_accounts:
        return f"sessions are ended by the account that began them ({', '.join(sorted(other_accounts))})"
    try:
        for known_by in sorted({_known_by(session, name) for session in sessions}):
            accounts.end_sessions(known_by)
    except UnreachableError:
        raise
    except MoveoutError as exc:
        return f"this server ends no single session: {exc}"
    return ""


def _known_by(session: LogEntry, name: str) -> str:
    """Return the name of a session at MinIO; those of the first days had a shorter name."""
    return str(session.what.details.get("revocation") or f"moveout-{session.what.bundle}-{name}")

"""Grants: the customer, and nobody else, may read one bundle, and nothing else, until a day.

A grant is an account of a MinIO server, a session at a token service, or a list of links. An account is taken back by
removing it. A session or a link carries its rights in itself and ends by itself; sooner where the server can. What
became of each, say the custody log and the server.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.custody.location_files import unknown_files
from migrate.custody.log import custody_log
from migrate.custody.log.custody_log import Log
from migrate.custody.log.entry import CustodyEvent, LogEntry, moment_of
from migrate.custody.log.events import need_sealed, record
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import Signer
from migrate.errors import GoneError, MoveoutError, NotAllowedError, UnreachableError, UsageError
from migrate.runtime.progress import Progress
from migrate.storage.api import Store
from migrate.storage.s3.access.minio_accounts import Account, Accounts
from migrate.storage.s3.access.permission_probe import Attempt
from migrate.storage.s3.access.sts_sessions import SessionKey, TokenService

_SHORTEST = timedelta(minutes=16)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_NEVER = datetime.max.replace(tzinfo=UTC)


def check_name(name: str) -> None:
    """Raise ``UsageError`` unless ``name`` can be an AWS profile's and an account's."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a grant", next_step="use lower-case letters, digits and '-', at most 31"
        )


def policy(bucket: str, prefix: str, expires: datetime) -> dict[str, Any]:
    """Return the policy: read what lies below the prefix, list it, nothing else, and nothing after the end (accounts
    end by themselves too, but MinIO's not sooner than after 15 minutes).

    Raises ``UsageError`` where the prefix has a wildcard of policies in it (IAM user guide, "Resource").
    """
    if re.search(r"[*?$]", f"{bucket}/{prefix}"):
        raise UsageError(
            f"the location's name {f'{bucket}/{prefix}'!r} has a wildcard in it",
            next_step="transfer the bundle to another",
        )
    before = {"DateLessThan": {"aws:CurrentTime": expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject"],
                "Resource": [f"arn:aws:s3:::{bucket}/{prefix}*"],
                "Condition": before,
            },
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
                "Condition": {**before, "StringLike": {"s3:prefix": [f"{prefix}*"]}},
            },
            {  # MinIO takes the right to read for one to read older versions, and what was deleted, too
                "Effect": "Deny",
                "Action": ["s3:GetObject", "s3:GetObjectVersion"],
                "Resource": [f"arn:aws:s3:::{bucket}/*"],
                "Condition": {"StringLike": {"s3:versionid": "?*"}},
            },
        ],
    }


def check_alone(store: Store) -> None:
    """Raise ``UsageError`` where somebody else's files lie below the location: whoever may read the one may read the
    others.
    """
    if other_files := unknown_files(store, (info.key for info in store.list())):
        raise UsageError(
            f"{store.location} has files that are no part of the bundle, such as {other_files[0]!r}",
            next_step="transfer the bundle to a location of its own, and grant it there",
        )


def create(
    store: Store, accounts: Accounts, name: str, rules: dict[str, Any], expires: datetime, *, signer: Signer
) -> Account:
    """Make the account and write the grant into the custody log; without that, the account is taken back. Raises like
    ``check_alone``.
    """
    check_name(name)
    check_alone(store)
    known_by = purpose(store.location, need_sealed(store).id, name)
    access = accounts.add(name, rules, max(expires, datetime.now(UTC) + _SHORTEST), known_by)
    try:
        record(store, signer, "granted", _details(name, access.access_key, expires))
    except BaseException:
        accounts.remove(access.access_key)
        raise
    return access


def begin(
    store: Store, service: TokenService, name: str, rules: dict[str, Any], expires: datetime, *,
    account: str, role: str, signer: Signer,
) -> SessionKey:  # fmt: skip
    """Begin a session and write the grant into the custody log; ``account`` is the access key by which it is begun.
    Where it cannot be written down nobody ever sees the credential, and it ends unused. Raises like ``check_alone``.
    """
    check_name(name)
    check_alone(store)
    known_by = revocation(store.location, need_sealed(store).id, name)
    access = service.begin(name, rules, expires - datetime.now(UTC), role=role, revocation=known_by)
    of_session = {"session": True, "by_access_key": account, "role": role, "revocation": known_by}
    record(store, signer, "granted", _details(name, access.access_key, expires) | of_session)
    return access


def _details(name: str, access_key: str, expires: datetime) -> dict[str, Any]:
    return {"to": name, "access_key": access_key, "expires": expires.astimezone(UTC).isoformat()}


def purpose(location: str, bundle: str, name: str) -> str:
    """Return what the accounts of a grant are for, as their server keeps it."""
    return f"moveout grant {name} of {bundle} at {_mark(location)}"


def revocation(location: str, bundle: str, name: str) -> str:
    """Return the names of a grant's sessions at MinIO."""
    return f"moveout-{bundle}-{name}-{_mark(location)}"


def _mark(location: str) -> str:
    """Tell locations apart: the same bundle may lie on a server twice."""
    return hashlib.sha256(location.partition("?")[0].encode()).hexdigest()[:16]


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


def listed(
    store: Store, accounts: Accounts, *, now: datetime | None = None, trust: Trust | None
) -> list[Granted]:
    """Return every grant that the log records, with what the server says of it now; of sessions and links servers say
    nothing. ``trust``: see ``_read``.
    """
    now = now or datetime.now(UTC)
    known = _read(store, trust)
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


def _read(store: Store, trust: Trust | None) -> Log:
    """Return the log. With ``trust`` no grant in it is over, or another location's, by the word of a key that its list
    does not count.
    """
    return custody_log.read(store).without({"revoked", "transferred"}, trust)


def _ended(known: Log) -> set[str]:
    return {str(entry.what.details.get("access_key")) for entry in known.find("revoked")}


def outlasting(store: Store, root: str, trust: Trust | None) -> list[Granted]:
    """Return grants of bundles that were erased at a location which are open, by the log alone: they would read the
    bundle of ``root``, too, if it came there, and it is another one. ``trust`` as in ``listed``.
    """
    log, now = _read(store, trust), datetime.now(UTC)
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


def revoke(store: Store, accounts: Accounts, name: str, signer: Signer, trust: Trust | None) -> Revoked:
    """Take back every grant of that name as far as the server can, and write it into the log. An account that a run
    made that died before it could write it down goes too: nobody has its secret. ``trust`` as in ``listed``.

    Raises ``GoneError`` where no grant has this name.
    """
    now = datetime.now(UTC)
    known = _read(store, trust)
    entries = [entry for entry in known.find("granted") if entry.what.details.get("to") == name]
    unrecorded_keys = _unwritten(accounts, known, store.location, name)
    if not entries and not unrecorded_keys:
        raise GoneError(
            f"no grant to {name!r} is in the custody log",
            next_step=f"moveout grant list {shlex.quote(store.location)} shows which there are",
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
            access_keys += accounts.of(purpose(location, bundle, name))
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


class Tested(Struct, frozen=True):
    """What a granted credential can do: files that it can read, operations that were refused; and what is wrong."""

    files: int
    refused: Sequence[str]
    findings: Sequence[Finding]


def probe(store: Store, attempts: Sequence[Attempt], *, workers: int, progress: Progress) -> Tested:
    """Read one byte of every file with the granted credential, and try what must be refused.

    Nothing that is tried does harm if it is allowed after all: it concerns names that do not exist.
    Raises like ``BundleReader``.
    """
    reader = BundleReader(store)
    signatures = [info.key for info in store.list(layout.SIGNATURES)]
    keys = [layout.TAG_MANIFEST, *reader.tags, *(file.key for file in reader.files()), *signatures]
    progress.begin("grant test", items=len(keys) + len(attempts), size_bytes=0)
    with ThreadPoolExecutor(workers, thread_name_prefix="moveout-grant") as pool:
        read = list(pool.map(lambda key: _can_read(store, key, progress), keys))
    findings = [finding for finding in read if finding is not None]
    refused = []
    for attempt in attempts:
        answer = _try(attempt.run)
        progress.advance(items=1)
        if answer == "refused":
            refused.append(attempt.what)
        else:
            findings.append(Finding(attempt.what, "is not refused", "AccessDenied", answer))
    progress.end()
    return Tested(len(keys) - sum(finding is not None for finding in read), refused, findings)


def _can_read(store: Store, key: str, progress: Progress) -> Finding | None:
    progress.advance(items=1)
    try:
        store.read(key, 0, 1)
    except MoveoutError as exc:
        return Finding(key, f"cannot be read: {exc}")
    return None


def _try(run: Callable[[], str]) -> str:
    try:
        return run()
    except MoveoutError as exc:
        return str(exc)

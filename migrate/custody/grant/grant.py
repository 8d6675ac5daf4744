"""A grant: the customer, and nobody else, may read one bundle, and nothing else, until a day.

It is an account of a MinIO server, a session at a token service, or a list of links. An account is taken back by
removing it. A session or a link carries its rights in itself and ends by itself; sooner where the server can.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.custody.erasure.other_files import unknown_files
from migrate.custody.log import custody_log
from migrate.custody.log.events import new_event
from migrate.custody.signing.keys import Signer
from migrate.errors import MoveoutError, UsageError
from migrate.runtime.progress import Progress
from migrate.storage.api import Store
from migrate.storage.s3.access.minio_accounts import Account, Accounts
from migrate.storage.s3.access.permission_probe import Attempt
from migrate.storage.s3.access.sts_sessions import SessionKey, TokenService

_SHORTEST = timedelta(minutes=16)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


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
    event = new_event(store, "granted")
    access = accounts.add(
        name, rules, max(expires, datetime.now(UTC) + _SHORTEST), purpose(store.location, event.bundle, name)
    )
    try:
        details = {
            "to": name,
            "access_key": access.access_key,
            "expires": expires.astimezone(UTC).isoformat(),
        }
        event = replace(event, details=details)
        custody_log.append(store, signer, lambda _: [event])
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
    lasts, event = expires - datetime.now(UTC), new_event(store, "granted")
    known_by = revocation(store.location, event.bundle, name)
    access = service.begin(name, rules, lasts, role=role, revocation=known_by)
    details: dict[str, Any] = {"to": name, "access_key": access.access_key}
    details |= {"expires": expires.astimezone(UTC).isoformat()}
    details |= {"session": True, "by_access_key": account, "role": role, "revocation": known_by}
    event = replace(event, details=details)
    custody_log.append(store, signer, lambda _: [event])
    return access


def purpose(location: str, bundle: str, name: str) -> str:
    """Return what the accounts of a grant are for, as their server keeps it."""
    return f"moveout grant {name} of {bundle} at {_mark(location)}"


def revocation(location: str, bundle: str, name: str) -> str:
    """Return the names of a grant's sessions at MinIO."""
    return f"moveout-{bundle}-{name}-{_mark(location)}"


def _mark(location: str) -> str:
    """Tell locations apart: the same bundle may lie on a server twice."""
    return hashlib.sha256(location.partition("?")[0].encode()).hexdigest()[:16]


class Tested(Struct, frozen=True):
    """What a granted credential can do: files that it can read, operations that were refused; and what is wrong."""

    files: int
    refused: Sequence[str]
    findings: Sequence[Finding]


def probe(store: Store, attempts: Sequence[Attempt], *, workers: int, progress: Progress) -> Tested:
    """Read one byte of every file with the granted credential, and try what must be refused.

    Nothing that is tried does harm if it is allowed after all: it concerns names that do not exist.
    """
    keys = files_of(store)
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


def files_of(store: Store) -> list[str]:
    """Return the keys of all files of a bundle, by its manifests. Raises like ``BundleReader``."""
    reader = BundleReader(store)
    signatures = [info.key for info in store.list(layout.SIGNATURES)]
    return [layout.TAG_MANIFEST, *reader.tags, *(file.key for file in reader.files()), *signatures]


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

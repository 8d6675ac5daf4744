"""A grant: the customer, and nobody else, may read one bundle, and nothing else, until a day."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.custody import log
from migrate.custody.keys import Signer
from migrate.custody.record import happening
from migrate.errors import GoneError, MoveoutError, UsageError
from migrate.progress import Progress
from migrate.store.attempts import Attempt
from migrate.store.base import Store
from migrate.store.minio_accounts import Account, Accounts

_SHORTEST = timedelta(minutes=16)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant that the custody log knows, and what became of it by now."""

    name: str
    access_key: str
    expires: str
    state: str


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
    if re.search(r"[*?$]", prefix):
        raise UsageError(
            f"the place's name {prefix!r} has a wildcard in it", next_step="transfer the bundle to another"
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
        ],
    }


def create(
    store: Store, accounts: Accounts, name: str, rules: dict[str, Any], expires: datetime, *, signer: Signer
) -> Account:
    """Make the account and write the grant into the custody log; without that, the account is taken back."""
    check_name(name)
    made = accounts.add(name, rules, max(expires, datetime.now(UTC) + _SHORTEST))
    try:
        details = {"to": name, "access_key": made.access_key, "expires": expires.astimezone(UTC).isoformat()}
        what = happening(store, "granted", details)
        log.append(store, signer, lambda _: [what])
    except BaseException:
        accounts.remove(made.access_key)
        raise
    return made


def listed(store: Store, accounts: Accounts, *, now: datetime | None = None) -> list[Granted]:
    """Return every grant that the log knows, with what the server says of it now."""
    found = []
    for one in log.read(store).find("granted"):
        details = one.what.details
        if "access_key" not in details:
            over = datetime.fromisoformat(str(details.get("expires"))) <= (now or datetime.now(UTC))
            name, state = str(details.get("to")), "expired" if over else "open"
            found.append(Granted(name, "links", str(details.get("expires")), state))
            continue
        access, expires = str(details.get("access_key")), str(details.get("expires"))
        there = accounts.find(access)
        over = datetime.fromisoformat(expires) <= (now or datetime.now(UTC))
        state = ("expired" if over else "open") if there else ("expired" if over else "revoked")
        found.append(Granted(str(details.get("to")), access, expires, state))
    return found


def revoke(store: Store, accounts: Accounts, name: str, signer: Signer) -> list[str]:
    """Remove every account of that name, and write it into the log; return their access keys.

    Raises ``GoneError`` where no grant has this name.
    """
    granted = log.read(store).find("granted")
    entries = [
        one for one in granted if one.what.details.get("to") == name and "access_key" in one.what.details
    ]
    if not entries:
        raise GoneError(f"no grant to {name!r} is in the custody log", next_step="moveout grant list PLACE")
    keys = []
    for one in entries:
        access = str(one.what.details.get("access_key"))
        accounts.remove(access)
        what = happening(store, "revoked", {"to": name, "access_key": access})
        log.append(store, signer, log.once(what))
        keys.append(access)
    return keys


@dataclass(frozen=True, slots=True)
class Tested:
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
    findings = [one for one in read if one is not None]
    refused = []
    for attempt in attempts:
        said = _try(attempt.run)
        progress.advance(items=1)
        if said == "refused":
            refused.append(attempt.what)
        else:
            findings.append(Finding(attempt.what, "is not refused", "AccessDenied", said))
    progress.end()
    return Tested(len(keys) - sum(one is not None for one in read), refused, findings)


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

"""Examines a location: whether it can be written, how much room it has, and what it can do.

A small file is written under ``_work/`` and removed again, because nothing else shows it.
"""

from __future__ import annotations

import errno
import os
import pwd
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exporters.doctor import Examination, Finding, Fix, gather
from migrate.bundle import bundle_json, layout
from migrate.case.model import Endpoint
from migrate.errors import AlreadyExistsError, MoveoutError, NoSpaceError, NotAllowedError
from migrate.number_text import bytes_words, count_words
from migrate.storage.api import MIN_PART_BYTES, MultipartStore
from migrate.storage.registry import open_location

_RETRY_SECONDS = 10.0
_FEW_FILES = 10_000
_NO_BUNDLE = "No bundle can be written there."
_PROBE = f"{layout.WORK}probe/doctor-"


def examine(location: Endpoint, size_bytes: int | None) -> Examination:
    """Examine a location that is to hold about ``size_bytes``. Raises ``MoveoutError`` where it does not answer."""
    store = open_location(location.url, secrets=location.reveal(), retry_seconds=_RETRY_SECONDS)
    facts = {"server": "bucket" if store.free_bytes() is None else "directory"}
    with _without_traces(location):
        checks = [
            ("room", _room(store, location, size_bytes, facts)),
            ("inodes", _inodes(store, location)),
            ("contents", _contents(store, location)),
        ]
        findings = gather(checks, name=location.shown, errors=(MoveoutError, OSError))
        refusals = list(_writes(store, location))
        findings += refusals
        if not refusals:
            abilities = [
                ("lock", _conditions(store, location)),
                ("multipart", _multipart(store, location)),
            ]
            findings += gather(abilities, name=location.shown, errors=(MoveoutError, OSError))
    faulty = {finding.check for finding in findings if finding.severity != "info"}
    if not refusals:
        facts["rights"] = "all"
        facts["lock"] = "none" if "lock" in faulty else "yes"
        facts["parts"] = "no" if "multipart" in faulty else "yes"
    return Examination(facts, findings)


@contextmanager
def _without_traces(location: Endpoint) -> Iterator[None]:
    """Remove the directories again that writing to a directory makes."""
    path = Path(location.url.removeprefix("file://")).expanduser().absolute()
    made = (
        []
        if _has_scheme(location)
        else [directory for directory in (path, *path.parents) if not directory.exists()]
    )
    try:
        yield
    finally:
        with suppress(OSError):
            for directory in made:
                directory.rmdir()


def _has_scheme(location: Endpoint) -> bool:
    return "://" in location.url and not location.url.startswith("file://")


def _room(
    store: MultipartStore, location: Endpoint, size_bytes: int | None, facts: dict[str, str]
) -> Iterator[Finding]:
    free = store.free_bytes()
    facts["room"] = "" if free is None else bytes_words(free)
    if free is not None and size_bytes is not None and free < size_bytes:
        problem = f"it has {bytes_words(free)} free, and about {bytes_words(size_bytes)} leave"
        advice = Fix("advice", "make room, or name another location")
        yield Finding("blocks", "room", location.shown, problem, "The export stops when it is full.", advice)


def _inodes(store: MultipartStore, location: Endpoint) -> Iterator[Finding]:
    free = store.free_files()
    if free is not None and free < _FEW_FILES:
        problem = f"the file system takes {count_words(free)} more files (inodes)"
        advice = Fix("advice", "name a location on another file system")
        yield Finding(
            "loses", "inodes", location.shown, problem, "The export stops when none are left.", advice
        )


def _contents(store: MultipartStore, location: Endpoint) -> Iterator[Finding]:
    sealed = bundle_json.read_sealed(store)
    if sealed is not None:
        state, consequence, purpose = (
            "incomplete",
            "An export adds what it lacks.",
            "this bundle is to be finished",
        )
        if sealed.complete:
            state, consequence, purpose = (
                "complete",
                "No export adds anything to it.",
                "all is in this bundle already",
            )
        problem = f"a sealed bundle lies there, which is {state}"
        advice = Fix("advice", f"name another location, unless {purpose}")
        yield Finding("info", "contents", location.shown, problem, consequence, advice)


def _writes(store: MultipartStore, location: Endpoint) -> Iterator[Finding]:
    key = _PROBE + secrets.token_hex(6)
    try:
        store.put(key, b"moveout doctor")
        store.delete(key)
    except NotAllowedError as exc:
        is_read_only = isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EROFS
        fix = Fix("advice", exc.next_step) if is_read_only else _rights(store, location, exc)
        yield Finding("blocks", "rights", location.shown, str(exc), _NO_BUNDLE, fix)
    except NoSpaceError as exc:
        advice = Fix("advice", "make room, or name another location")
        yield Finding("blocks", "room", location.shown, str(exc), _NO_BUNDLE, advice)
    except MoveoutError as exc:
        fix = Fix("advice", exc.next_step or "look at the server and the network")
        yield Finding("blocks", exc.code, location.shown, str(exc), _NO_BUNDLE, fix)


def _rights(store: MultipartStore, location: Endpoint, error: NotAllowedError) -> Fix:
    if store.free_bytes() is None:
        from migrate.doctor.iam import fix_of  # noqa: PLC0415  it imports botocore

        rights = Fix(
            "advice",
            "allow s3:PutObject, s3:GetObject, s3:DeleteObject, s3:AbortMultipartUpload and"
            " s3:ListMultipartUploadParts on the location, and s3:ListBucket and s3:ListBucketMultipartUploads"
            " on its bucket",
        )
        return fix_of(error, rights)
    path = shlex.quote(location.url.removeprefix("file://"))
    return Fix("shell", f"mkdir -p {path} && chown {_own_user()} {path} && chmod u+rwx {path}")


def _own_user() -> str:
    """Return who runs this: the fix is typed by root, whose $USER is another one."""
    try:
        return shlex.quote(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:  # in a container the number may have no name
        return str(os.geteuid())


def _conditions(store: MultipartStore, location: Endpoint) -> Iterator[Finding]:
    """Create a file twice: the second time must be refused, for that is how two runs are kept apart."""
    key = _PROBE + secrets.token_hex(6)
    store.create(key, b"1")
    try:
        store.create(key, b"2")
    except AlreadyExistsError:
        return
    finally:
        store.delete(key)
    problem = "the server ignores conditional writes (If-None-Match)"
    advice = Fix("advice", "never let two runs write there at once, or name another location")
    yield Finding(
        "slow", "lock", location.shown, problem, "Two runs at once would not notice each other.", advice
    )


def _multipart(store: MultipartStore, location: Endpoint) -> Iterator[Finding]:
    key = _PROBE + secrets.token_hex(6)
    try:
        upload = store.begin(key)
        store.put_part(key, upload, 1, bytes(MIN_PART_BYTES // 5))
        store.abort(key, upload)
        list(store.uploads(key))
    except NotAllowedError as exc:
        consequence = "Large files cannot be written there."
        yield Finding(
            "blocks", "multipart", location.shown, str(exc), consequence, _rights(store, location, exc)
        )

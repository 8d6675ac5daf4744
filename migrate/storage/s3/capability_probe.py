"""What a destination takes as it is, tried out with keys of our own before the first object is written.

S3 servers over file systems refuse keys that are no paths, or, worse, store them under another name and
answer 200. Each kind of oddity that occurs is tried once, and so is what a destination may refuse of an object.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any

from msgspec import Struct, field

from exporters.bucket_api import ObjectSummary
from exporters.objects import key_oddities
from migrate.errors import MoveoutError, NoSpaceError, NotAllowedError, UnreachableError
from migrate.storage.s3.destination_bucket import DestinationBucket, Written
from migrate.storage.s3.http.messages import Headers, Request, is_server_fault, was_answered
from migrate.storage.s3.metadata.object_metadata import Description

LONGEST_KEY_BYTES = 1024
"""S3's maximum (Amazon S3 user guide, "Object key naming guidelines")."""
_BODY = b"probe"
_AT_ONCE = 8
"""A trial is a dozen requests, one after the other."""
_TRUSTED_SECONDS = 5.0
_CLEAR_TRIES = 5
"""versitygw 1.8 keeps a version now and then whose neighbour is removed at the same moment."""
_LOCKS = "the bucket locks everything that is written to it"
_HEADERS, _METADATA = {"content-type": "text/x-probe"}, {"probe": "yes"}
_SAMPLE_HEADERS = {
    "cache-control": "no-cache",
    "content-disposition": "attachment",
    "content-language": "en",
    "expires": "Thu, 01 Jan 2037 00:00:00 GMT",
    "x-amz-website-redirect-location": "/probe",
}
"""Not the Content-Encoding: some servers, and networks before them, show it to those only who take it."""
_NAME_BEGINS = "moveout-probe-"
_NAME = re.compile(rf"{_NAME_BEGINS}[0-9a-f]{{12}}")
_SAMPLES: Mapping[str, tuple[str, ...]] = {
    key_oddities.EMPTY: ("{name}//x",),
    key_oddities.DOT: ("{name}/./x",),
    key_oddities.DOTDOT: ("{name}/../{name}-x",),
    key_oddities.LONG: ("{name}" + "x" * key_oddities.LONG_SEGMENT_BYTES,),
    key_oddities.DIRECTORY: ("{name}/",),
    key_oddities.DIRECTORY_WITH_BYTES: ("{name}/",),
    key_oddities.DIRECTORY_AND_OBJECT: ("{name}", "{name}/"),
    key_oddities.OBJECT_AS_DIRECTORY: ("{name}", "{name}/x"),
    key_oddities.CASE: ("{name}/a", "{name}/A"),
    key_oddities.FORM: ("{name}/\u00e9", "{name}/e\u0301"),
}
ALWAYS = frozenset({key_oddities.CASE, key_oddities.FORM})
"""Tried of every destination: which keys of a bucket would meet can only be told by looking at all of them."""


class Refusals(Struct, frozen=True):
    """What a destination does not keep of objects. ``refused_keys``, ``refused_classes``, ``refused_tags`` (texts of
    other scripts) and ``refused_acls`` (canned ones) say what it does instead; ``lost_tags`` says it of all tags,
    ``lost_headers`` of single headers. ``lock_denied``: whether it has object lock may not be read.
    """

    object_lock: bool
    lock_denied: bool = False
    refused_keys: Mapping[str, str] = field(default_factory=dict)
    refused_classes: Mapping[str, str] = field(default_factory=dict)
    refused_tags: str = ""
    lost_tags: str = ""
    lost_headers: Mapping[str, str] = field(default_factory=dict)
    refused_acls: Mapping[str, str] = field(default_factory=dict)


DENIED = "denied"
LOCK_DENIED = (
    "whether the destination bucket has object lock may not be read (s3:GetBucketObjectLockConfiguration)"
)


class Capabilities(Refusals, frozen=True, kw_only=True):
    """What was found out about a destination. ``probed`` is False where nothing could be tried out, because it would
    have stayed (``why``). ``versioning`` is ``denied`` where these credentials may not know.
    """

    url: str
    server: str
    at: str
    versioning: str
    probed: bool = True
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the record as it is kept."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


Later = Callable[[Callable[[], object]], object]
"""What does a thing at once, or by and by."""


def do_now(call: Callable[[], object]) -> object:
    """Do it at once."""
    return call()


class ProbePlan(Struct, frozen=True):
    """What is tried out at a destination: oddities of ``keys``, storage ``classes``, ``headers``, canned ``acls``, and
    tags; ``odd_tags`` are those in other scripts.
    """

    keys: Iterable[str] = ()
    classes: Iterable[str] = ()
    tags: bool = False
    odd_tags: bool = False
    headers: Collection[str] = ()
    acls: Iterable[str] = ()


def probe(destination: DestinationBucket, plan: ProbePlan, later: Later = do_now) -> Capabilities:
    """Try out what is planned. Leaves nothing behind, once all is done that was handed to ``later``. Raises
    ``UnreachableError``, ``NotAllowedError``.
    """
    lock, at = destination.object_lock(), datetime.now(UTC).isoformat()
    if reason := keeps_probes(destination):
        return Capabilities(
            url=destination.url,
            server=destination.server,
            at=at,
            versioning=_versioning(destination),
            object_lock=lock is not None,
            lock_denied=destination.lock_denied,
            probed=False,
            why=reason,
        )
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="moveout-probe") as threads:

        def tried(trial: Callable[[DestinationBucket, str], str | None], kinds: Iterable[str]) -> _Trials:
            return {kind: threads.submit(trial, destination, kind) for kind in sorted(kinds)}

        versioning = threads.submit(_versioning, destination)
        refused_keys = tried(partial(_try_keys, versioning=versioning, later=later), {*plan.keys, *ALWAYS})
        refused_classes = tried(partial(_try_class, later=later), plan.classes)
        refused_acls = tried(partial(_try_acl, later=later), plan.acls)
        lost_headers = threads.submit(_try_headers, destination, plan.headers, later)
        odd, plain = {"t\u00f6": "\u65e5"}, {"moveout": "probe"}
        refused_tags = threads.submit(_try_tags, destination, odd, later) if plan.odd_tags else None
        lost_tags = threads.submit(_try_tags, destination, plain, later) if plan.tags else None
        return Capabilities(
            url=destination.url,
            server=destination.server,
            at=at,
            versioning=versioning.result(),
            object_lock=lock is not None,
            lock_denied=destination.lock_denied,
            refused_keys=_faults(refused_keys),
            refused_classes=_faults(refused_classes),
            refused_tags=refused_tags.result() if refused_tags else "",
            lost_tags=lost_tags.result() if lost_tags else "",
            lost_headers=lost_headers.result(),
            refused_acls=_faults(refused_acls),
        )


def keeps_probes(destination: DestinationBucket) -> str:
    """Return why what is tried out would stay at the destination; empty where it can be removed. Where that may not be
    read, one object is written, and stays if it is locked. Raises ``UnreachableError``.
    """
    if destination.keeps_probes is None:
        lock = destination.object_lock()
        if lock and lock.get("Rule"):
            destination.keeps_probes = f"{_LOCKS}; what is tried out would stay"
        else:
            destination.keeps_probes = _kept_probe(destination) if destination.lock_denied else ""
    return destination.keeps_probes


def _kept_probe(destination: DestinationBucket) -> str:
    """Write an object and remove it; return why it stays, empty where it does not."""
    key = destination.prefix + _new_name()
    written = destination.put(Description(key), _BODY)
    if not written.version_id:
        _quietly(destination.delete_all([key]))
        return ""
    removed = next(destination.delete_versions([(key, written.version_id)]))
    if removed.error is None:
        return ""
    return f"{_LOCKS}, or does not let it be removed ({removed.error}): {key} was tried out, and stays"


def _versioning(destination: DestinationBucket) -> str:
    try:
        return destination.versioning()
    except NotAllowedError:
        return DENIED


_Trials = dict[str, Future[str | None]]


def _faults(trials: _Trials) -> dict[str, str]:
    """Return what is wrong, by what was tried."""
    return {kind: fault for kind, trial in trials.items() if (fault := trial.result())}


def _new_name() -> str:
    """Return how the key of an object begins that is written to try a destination out."""
    return f"{_NAME_BEGINS}{secrets.token_hex(6)}"


def is_probe_object(destination: DestinationBucket, key: str) -> bool:
    """Tell whether a key is one of those that are written to try a destination out."""
    return _NAME.match(key.removeprefix(destination.prefix).removeprefix("/")) is not None


def clear_probe_objects(destination: DestinationBucket, keys: Collection[str]) -> None:
    """Remove what a probe that was killed has left, all versions of it."""
    for name in {_NAME.findall(key)[0] for key in keys}:
        _clear(destination, name, [key for key in keys if name in key])


FIRST_MARKER = "before any version"
REPEATED_MARKER = "after another one"


def refused_markers(destination: DestinationBucket) -> frozenset[str]:
    """Return which delete markers a bucket that keeps versions does not make: some servers make none for a key that
    has no version, or that has one already. Leaves nothing behind.
    """
    if keeps_probes(destination):
        return frozenset()
    name = _new_name()
    key, never = f"{destination.prefix}{name}", f"{destination.prefix}{name}-never"
    try:
        if destination.attempt(Description(key), _BODY) is not None:
            return frozenset()
        for probed_key in (key, key, never):
            destination.delete(probed_key)
        marker_keys = [
            version.key for version in destination.list_versions(prefix=key) if version.is_delete_marker
        ]
    finally:
        _clear(destination, name, [key, never])
    refused = {FIRST_MARKER: never not in marker_keys, REPEATED_MARKER: marker_keys.count(key) < 2}
    return frozenset(kind for kind, is_refused in refused.items() if is_refused)


def stops_all(destination: DestinationBucket, error: MoveoutError) -> bool:
    """Tell whether what one write ended in stops all others. Access that is denied to one key does not, nor an error
    of the server itself, where the destination takes a key of our own; this is tried every few seconds at most.
    """
    if not isinstance(error, NotAllowedError) and not is_server_fault(error):
        return isinstance(error, UnreachableError | NoSpaceError)
    with destination.probe_lock:
        if time.monotonic() - destination.took_probe_at < _TRUSTED_SECONDS:
            return False
        is_taken = _takes_probe(destination)
        destination.took_probe_at = time.monotonic() if is_taken else -math.inf
        return not is_taken


def _takes_probe(destination: DestinationBucket) -> bool:
    """Write an object and remove it; tell whether it was taken. False where it would stay."""
    if keeps_probes(destination):
        return False
    key = destination.prefix + _new_name()
    written = destination.put(Description(key), _BODY)
    if written.error is None and written.version_id:
        _quietly(destination.delete_versions([(key, written.version_id)]))
    elif written.error is None:
        _quietly(destination.delete_all([key]))
    return written.error is None


def _try_keys(
    destination: DestinationBucket, kind: str, *, versioning: Future[str], later: Later
) -> str | None:
    """Return what the destination does with such keys, None where it keeps them. Where it keeps versions, these
    are listed, too.
    """
    name = _new_name()
    sample_keys = _sample(destination, kind, name)
    if any(len(key.encode()) > LONGEST_KEY_BYTES for key in sample_keys):
        return f"takes no key of more than {LONGEST_KEY_BYTES} bytes, and its prefix is long"
    try:
        bodies = {
            key: b"" if kind == key_oddities.DIRECTORY else _BODY + b"!" * number
            for number, key in enumerate(sample_keys)
        }
        with ThreadPoolExecutor(len(bodies) + 1, thread_name_prefix="moveout-probe") as threads:

            def write(key: str) -> MoveoutError | None:
                plain = destination.prefix + name
                return _attempt(destination, Description(key, _HEADERS, _METADATA), bodies[key], plain=plain)

            # Of the other kinds the order counts: an object, and then one that would lie in it.
            written = threads.map(write, sample_keys) if kind in ALWAYS else map(write, sample_keys)
            if (error := next(filter(None, written), None)) is not None:
                return f"refuses it ({error})"
            looks = {key: threads.submit(_look, destination, key) for key in sample_keys}
            versions = threads.submit(lambda: _versions(destination, name) if versioning.result() else None)
            stored = _stored(destination, name)
            return (
                _differently({version.key for version in stored}, set(sample_keys))
                or _differently_kept(versions.result(), set(sample_keys))
                or _changed(destination, stored, bodies, {key: look.result() for key, look in looks.items()})
            )
    finally:
        later(lambda: _clear(destination, name, sample_keys))


def _look(destination: DestinationBucket, key: str) -> Headers | None:
    """Return what the server says of an object, None where it does not. Asks once."""
    try:
        return destination.reader.http.call(Request("HeadObject", "HEAD", key)).headers
    except MoveoutError:
        return None


def _attempt(
    destination: DestinationBucket, described: Description, body: bytes, *, plain: str
) -> MoveoutError | None:
    """Write one object; return why not. Some servers answer that access is denied for keys that they cannot
    hold: that counts only where a plain key is denied, too. Raises ``NotAllowedError``.
    """
    try:
        return destination.attempt(described, body)
    except NotAllowedError as exc:
        if described.key == plain:
            raise
        destination.attempt(Description(plain), body)
        _quietly(destination.delete_all([plain]))
        return exc


def _try_one(
    destination: DestinationBucket, difference: Callable[[str], str | None], later: Later, **described: Any
) -> str | None:
    """Write one object so described; ``difference`` looks at it by its key. Return what is wrong, or None."""
    name = _new_name()
    key = destination.prefix + name
    try:
        error = destination.attempt(Description(key, **described), _BODY)
        return difference(key) if error is None else f"refuses it ({error})"
    finally:
        later(lambda: _clear(destination, name, [key]))


def _try_tags(destination: DestinationBucket, tags: Mapping[str, str], later: Later) -> str:
    def difference(key: str) -> str | None:
        return None if destination.tags(key) in (tags, None) else "takes it and does not keep it"

    return _try_one(destination, difference, later, tags=tags) or ""


def _try_headers(destination: DestinationBucket, headers: Collection[str], later: Later) -> dict[str, str]:
    """Return which of these headers the destination does not keep; none where it refuses all of them together: then it
    refuses such objects, too.
    """
    tried = {name: value for name, value in _SAMPLE_HEADERS.items() if name in headers}
    lost = dict[str, str]()

    def difference(key: str) -> None:
        if (kept := _look(destination, key)) is not None:
            lost.update((name, "takes it and does not keep it") for name in tried.keys() - kept.keys())

    if tried:
        with suppress(NotAllowedError):
            _try_one(destination, difference, later, headers=tried)
    return lost


def _try_acl(destination: DestinationBucket, acl: str, *, later: Later) -> str | None:
    def difference(key: str) -> str | None:
        return None if destination.acl(key) in {acl, None} else "takes it, and has another one afterwards"

    return _try_one(destination, difference, later, acl=acl)


def _try_class(destination: DestinationBucket, storage_class: str, *, later: Later) -> str | None:
    def difference(key: str) -> str | None:
        actual_class = next((summary.storage_class for summary in destination.list(prefix=key)), "")
        return None if actual_class == storage_class else f"makes {actual_class or 'nothing'} of it"

    return _try_one(destination, difference, later, storage_class=storage_class)


def _differently(stored_keys: set[str], expected_keys: set[str]) -> str | None:
    # MinIO of 2020 lists a prefix with a slash before it as if it had none, and puts the slash before each key.
    stored_keys = stored_keys - {f"/{key}" for key in expected_keys & stored_keys}
    if stored_keys == expected_keys:
        return None
    other = min(stored_keys - expected_keys, default=None)
    return "does not list it afterwards" if other is None else f"stores it as {other!r}"


def _differently_kept(versions: Iterable[ObjectSummary] | None, expected_keys: set[str]) -> str | None:
    return None if versions is None else _differently({version.key for version in versions}, expected_keys)


def _changed(
    destination: DestinationBucket,
    stored: Iterable[ObjectSummary],
    bodies: Mapping[str, bytes],
    looks: Mapping[str, Headers | None],
) -> str | None:
    """Return what has become of the content, headers and metadata of probe objects that are listed by their names.
    What no look has shown is looked at with more patience.
    """
    expected_headers = _HEADERS | {f"x-amz-meta-{name}": value for name, value in _METADATA.items()}
    for summary in stored:
        if summary.key not in bodies:
            continue
        headers = looks[summary.key]
        if headers is None:
            fetched = destination.reader.head(summary)
            if fetched.error is not None:
                destination.has_faltered |= isinstance(fetched.error, UnreachableError)
                return f"lists it and cannot read it ({fetched.error})"
            headers = fetched.headers
        size_bytes = int(headers.get("content-length", summary.size_bytes))
        if {summary.size_bytes, size_bytes} != {len(bodies[summary.key])}:
            return f"makes {size_bytes} bytes of {len(bodies[summary.key])}"
        if any(headers.get(name) != value for name, value in expected_headers.items()):
            return "does not keep its headers and metadata"
    return None


def _sample(destination: DestinationBucket, kind: str, name: str) -> list[str]:
    if kind.startswith(key_oddities.CHARACTER):
        char = chr(int(kind.removeprefix(key_oddities.CHARACTER + "U+"), 16))
        return [f"{destination.prefix}{name}{char}x"]
    if kind == key_oddities.WHOLE:
        start = f"{destination.prefix}{name}/"
        rest = LONGEST_KEY_BYTES - len(start.encode())
        return [start + ("x" * 99 + "/") * (rest // 100) + "x" * (rest % 100 or 1)]
    if kind == key_oddities.LEADING:
        return [(destination.prefix or "/") + name]  # behind another prefix no key begins so
    return [destination.prefix + sample.format(name=name) for sample in _SAMPLES[kind]]


def _stored(destination: DestinationBucket, name: str) -> list[ObjectSummary]:
    """Return what has come to lie anywhere under the name of a probe object."""
    return _everywhere(destination, name, lambda prefix: destination.list(prefix=prefix))


def _versions(destination: DestinationBucket, name: str) -> list[ObjectSummary]:
    return _everywhere(destination, name, lambda prefix: destination.list_versions(prefix=prefix))


def _everywhere(
    destination: DestinationBucket, name: str, listing: Callable[[str], Iterable[ObjectSummary]]
) -> list[ObjectSummary]:
    def listed(prefix: str) -> list[ObjectSummary]:
        try:
            return list(listing(prefix))
        except (UnreachableError, NotAllowedError):
            raise
        except MoveoutError:
            return []  # what it cannot list it cannot hold

    prefixes = [f"{within}{slash}{name}" for within in {"", destination.prefix} for slash in ("", "/")]
    with ThreadPoolExecutor(len(prefixes), thread_name_prefix="moveout-probe") as threads:
        return list(chain.from_iterable(threads.map(listed, prefixes)))


def _clear(destination: DestinationBucket, name: str, sample_keys: Sequence[str]) -> None:
    """Remove the probe objects, all versions of them."""
    keys = {*(summary.key for summary in _stored(destination, name)), *sample_keys}
    _quietly(destination.delete_all(sorted(keys)))
    for _ in range(_CLEAR_TRIES):
        versions = [
            (key, left.version_id)
            for left in _versions(destination, name)
            # SeaweedFS 4.53 lists versions, and only them, with U+FFFD for characters that XML cannot carry.
            for key in ([left.key] if left.key in sample_keys else [left.key, *sample_keys])
        ]
        if not versions:
            return
        _quietly(destination.delete_versions(versions))


def _quietly(removals: Iterable[Written]) -> None:
    """Wait for removals. A key that a server refuses to write it also refuses to delete."""
    for removal in removals:
        if isinstance(removal.error, UnreachableError) and not was_answered(removal.error):
            raise removal.error

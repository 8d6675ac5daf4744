"""One line of the custody log: who did what to a bundle, and when; signed, and tied to the line before.

A line is canonical JSON. ``prev`` is the SHA-256 of the line before, without its newline (zeros for the first).
``signature`` is an SSH signature over the same JSON without ``signature``, in the namespace ``moveout-custody``: base64
of what stands between the armor's lines.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from msgspec import Struct, field

from migrate.bundle import canonical_json
from migrate.bundle.findings import Finding
from migrate.custody.signing import ssh_signatures
from migrate.custody.signing.keys import PublicKey, Signer
from migrate.errors import DamageError

VERSION = 1
NOBODY = "0" * 64
"""What the first line follows."""

EVENTS = (
    "created", "sealed", "signed", "timestamped", "transferred", "fetched", "verified", "restored", "audited", "held",
    "released", "granted", "revoked", "received", "acknowledged", "noted", "erasing", "erased", "switched",
    "switched back",
)  # fmt: skip
"""What moveout writes; readers let others be."""

_TEXTS = ("prev", "time", "event", "bundle", "root", "location", "name", "key", "signature")

_TEXTS_OF_DETAILS = ("file", "sha256")


class CustodyEvent(Struct, frozen=True):
    """What is to be recorded. ``bundle`` is its id, ``root`` the SHA-256 of its tag manifest, ``location`` where it
    lies. ``details`` are plain JSON values without secrets.
    """

    event: str
    bundle: str
    root: str
    location: str
    details: Mapping[str, Any] = field(default_factory=dict)


class LogEntry(Struct, frozen=True):
    """A line that was read, and its signature holds. ``time`` is the writer's clock, ISO 8601 in UTC."""

    number: int
    prev: str
    time: str
    what: CustodyEvent
    name: str
    public: PublicKey
    line: bytes

    @property
    def hash(self) -> str:
        """What the next line follows."""
        return hashlib.sha256(self.line).hexdigest()

    @property
    def moment(self) -> datetime:
        """``time`` as a moment."""
        moment = moment_of(self.time)
        assert moment is not None  # ``read`` has looked
        return moment


def moment_of(text: object) -> datetime | None:
    """Return the moment that a text of a log names, of UTC where it names no zone; None where it names none."""
    try:
        moment = datetime.fromisoformat(str(text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):  # the last is of a day beyond the calendar
        return None


def write(signer: Signer, new_event: CustodyEvent, after: LogEntry | None, now: datetime) -> LogEntry:
    """Return the entry that follows ``after`` (None: the first)."""
    value = {
        "version": VERSION,
        "number": after.number + 1 if after else 1,
        "prev": after.hash if after else NOBODY,
        "time": now.astimezone(UTC).isoformat(timespec="milliseconds"),
        "event": new_event.event,
        "bundle": new_event.bundle,
        "root": new_event.root,
        "location": new_event.location,
        "name": signer.public.name,
        "key": signer.public.fingerprint,
        "details": dict(new_event.details),
    }
    return read(sign(signer, value))


def sign(signer: Signer, value: Mapping[str, Any]) -> bytes:
    """Return a value as JSON with the key's signature of it as the member ``signature``."""
    armored = ssh_signatures.sign(signer, ssh_signatures.ENTRY, [canonical_json.encode(value)])
    signature = b"".join(armored.splitlines()[1:-1]).decode()
    return canonical_json.encode({**value, "signature": signature})


def signer_of(value: Mapping[str, Any]) -> PublicKey | None:
    """Return whose signature a value has; None where it was changed since. Raises ``ValueError`` where it has none."""
    signature = ssh_signatures.parse(_armored(value["signature"]))
    message = canonical_json.encode({name: part for name, part in value.items() if name != "signature"})
    return signature.public if signature.holds([message], ssh_signatures.ENTRY) else None


@lru_cache(maxsize=4096)
def read(line: bytes) -> LogEntry:
    """Read a line without its newline. Raises ``ValueError`` that says what is wrong with it. A command reads its log
    several times: a line whose signature holds is checked once.
    """
    try:
        value = canonical_json.decode(line, "")
    except DamageError as exc:
        raise ValueError("is not an entry") from exc
    version = value.get("version")
    if type(version) is int and version != VERSION:
        raise ValueError(
            f"was made by another version of the format ({version}); this moveout reads version {VERSION}:"
            " use the moveout that wrote it"
        )
    if type(version) is not int or not all(isinstance(value.get(name), str) for name in _TEXTS):
        raise ValueError("is not an entry of version 1")
    number, details = value.get("number"), value.get("details")
    if not (type(number) is int and isinstance(details, dict)):
        raise ValueError("is not an entry of version 1")
    if not all(isinstance(details.get(name, ""), str) for name in _TEXTS_OF_DETAILS):
        raise ValueError("is not an entry: what it names is no file")
    if _encoded(value) != line:
        raise ValueError("is not written as an entry is")
    try:
        public = signer_of(value)
    except ValueError as exc:
        raise ValueError(f"is not an entry: {exc}") from exc
    if moment_of(value["time"]) is None or datetime.fromisoformat(value["time"]).tzinfo is None:
        raise ValueError("is not an entry: its time is no moment with a zone")
    if public is None or public.fingerprint != value["key"]:
        raise ValueError("was changed after it was signed")
    new_event = CustodyEvent(value["event"], value["bundle"], value["root"], value["location"], details)
    public = PublicKey(public.raw, value["name"])
    return LogEntry(number, value["prev"], value["time"], new_event, value["name"], public, line)


def _encoded(value: Mapping[str, Any]) -> bytes:
    try:
        return canonical_json.encode(value)
    except ValueError:
        return b""


def _armored(text: str) -> bytes:
    """Return a signature as text with its armor. Raises ``ValueError``, also for bits that the bytes do not need."""
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError("its signature is no base64") from exc
    if base64.b64encode(blob).decode() != text:
        raise ValueError("its signature is base64 of another form")
    return ssh_signatures.armor(blob)


def chain(lines: Sequence[bytes], key: str) -> tuple[list[LogEntry], list[Finding]]:
    """Read the lines of a log and check that each follows the one before; ``key`` names the log in findings.

    Returns the entries that could be read, and what is wrong, by line.
    """
    entries: list[LogEntry] = []
    findings: list[Finding] = []
    locations = {NOBODY: 0}
    last, number = NOBODY, 0
    for position, line in enumerate(lines, 1):
        line_name = f"{key} line {position}"
        try:
            entry = read(line)
        except ValueError as exc:
            findings.append(Finding(line_name, str(exc)))
            last, number = hashlib.sha256(line).hexdigest(), number + 1
            locations.setdefault(last, position)
            continue
        if entry.prev != last:
            findings.append(
                Finding(line_name, _misplaced(entry, locations), f"after {last}", f"after {entry.prev}")
            )
        elif entry.number != number + 1:
            findings.append(Finding(line_name, "has another number", str(number + 1), str(entry.number)))
        entries.append(entry)
        last, number = entry.hash, entry.number
        locations.setdefault(last, position)
    return entries, findings


def _misplaced(entry: LogEntry, locations: Mapping[str, int]) -> str:
    if entry.hash in locations:
        return f"repeats line {locations[entry.hash]}"
    if entry.prev in locations:
        before = locations[entry.prev]
        earlier = "the beginning" if before == 0 else f"line {before}"
        return f"begins a second branch after {earlier}"
    return f"is entry {entry.number}, and what it follows is missing or stands elsewhere"

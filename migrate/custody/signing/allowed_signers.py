"""Whose signatures count: OpenSSH's ``allowed_signers`` file (ssh-keygen(1), "ALLOWED SIGNERS")."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from msgspec import Struct

from migrate.bundle.findings import Finding
from migrate.custody.signing import keys, party_names, ssh_signatures
from migrate.custody.signing.keys import PublicKey
from migrate.errors import UsageError
from migrate.number_text import moment_words

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(
    rf"(?P<principals>{_QUOTED}|\S+)\s+(?:(?P<options>(?:{_QUOTED}|[^\s\"])+)\s+)?(?P<key>{keys.TYPE}\s.*)"
)
_OPTION = re.compile(r"(?P<name>[^=,\s]+)(?:=\"(?P<value>[^\"]*)\")?,?")


class ListedKey(Struct, frozen=True):
    """What one line says of a key: its owner's name (principals), and from when and until when its signatures count."""

    name: str
    valid_after: datetime | None = None
    valid_before: datetime | None = None

    def counts(self, at: datetime) -> bool:
        """Tell whether a signature of that time counts."""
        begun = self.valid_after is None or at >= self.valid_after
        return begun and (self.valid_before is None or at < self.valid_before)

    def __str__(self) -> str:
        ends = (("from", self.valid_after), ("until", self.valid_before))
        period = " ".join(f"{word} {moment_words(moment)}" for word, moment in ends if moment)
        return f"{self.name}, whose key counts {period or 'at any time'}"


class Trust(Struct, frozen=True):
    """The keys that our side lists. A signature counts by the time at which it was made, as far as that is written
    down (``ssh-keygen -Overify-time``): a key that is replaced by now has signed what it has signed.
    """

    keys: Mapping[PublicKey, Sequence[ListedKey]]
    source: str

    def name(self, public: PublicKey, at: datetime | None = None) -> str | None:
        """Return what our side calls the owner of a key that signed at a time, now by default; None where the list has
        none.
        """
        moment = at or datetime.now(UTC)
        return next((key.name for key in self.keys.get(public, ()) if key.counts(moment)), None)

    def label(self, public: PublicKey, at: datetime | None = None) -> str | None:
        """Return ``name``, with the key's fingerprint where the list has that name for several keys."""
        name = self.name(public, at)
        namesakes = sum(any(listed.name == name for listed in lines) for lines in self.keys.values())
        return f"{name} ({public.fingerprint})" if name and namesakes > 1 else name

    def owners(self, public: PublicKey) -> frozenset[str]:
        """Return all that the list calls the owner of a key, at any time."""
        return frozenset(name for key in self.keys.get(public, ()) for name in key.name.split(","))

    def missing(
        self, signers: Iterable[PublicKey], signed_thing: str, at: Mapping[str, datetime]
    ) -> list[Finding]:
        """Return a finding where none of ``signers`` is known. ``at``: when each key signed, by its fingerprint; now
        where that is not known.
        """
        if any(self.name(public, at.get(public.fingerprint)) for public in signers):
            return []
        return [Finding(signed_thing, f"is signed by nobody in {self.source}")]


def load(path: Path) -> Trust:
    """Read an ``allowed_signers`` file: principals, then perhaps options, key type, key. A key that its options keep
    from signing here counts for nothing, as with ``ssh-keygen``. Raises ``UsageError``, also for names that are taken
    for one another.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(
            f"the list of signers {path} cannot be read: {exc}",
            next_step="name a file with lines as `moveout keys show` prints them, each behind a name",
        ) from exc
    listed: dict[PublicKey, list[ListedKey]] = {}
    names = _Names()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        public = keys.parse_line(match["key"]) if match else None
        if match is None or public is None:
            file = shlex.quote(str(path))
            is_key = keys.parse_line(line.strip()) is not None
            raise UsageError(
                f"{path} line {number} names no Ed25519 key",
                next_step=f"it is a public key alone: moveout keys show {file} > allowed_signers makes such a list"
                if is_key
                else "write: NAME ssh-ed25519 AAAA… (a line that `moveout keys show` prints)",
            )
        line_name, principals = f"{path} line {number}", match["principals"].strip('"')
        names.check(principals.split(","), line_name)
        period = _period(match["options"] or "", line_name)
        if period is not None:
            listed.setdefault(public, []).append(ListedKey(principals, *period))
    return Trust(listed, str(path))


class _Names:
    """The names of a list, each with the line where it came first."""

    def __init__(self) -> None:
        self._by_look: dict[str, tuple[str, str]] = {}

    def check(self, names: Iterable[str], line_name: str) -> None:
        """Raise ``UsageError`` for a name that no party may have, or that looks like another one."""
        for name in names:
            if wrong := party_names.objection(name):
                raise UsageError(
                    f"{line_name}: the name {name!a} {wrong}",
                    next_step="write another: the name in this file is yours to choose",
                )
            for look in party_names.looks(name):
                former, where = self._by_look.setdefault(look, (name, line_name))
                if former != name:
                    raise UsageError(
                        f"{line_name}: the name {name!a} looks like {former!a} of {where}",
                        next_step="write one name the same everywhere; give two parties names that look different",
                    )


def _period(options: str, line_name: str) -> tuple[datetime | None, datetime | None] | None:
    """Return from when and until when a key may sign what moveout signs; None where it never may. Raises ``UsageError``
    for an option that is not known.
    """
    moments: dict[str, datetime] = {}
    for option in _OPTION.finditer(options):
        name, value = option["name"].lower(), option["value"]
        if name == "namespaces" and value is not None:
            able = [
                any(map(partial(fnmatchcase, namespace), value.split(",")))
                for namespace in ssh_signatures.NAMESPACES
            ]
            if any(able) and not all(able):
                raise UsageError(
                    f"{line_name}: a key may sign some of what moveout signs, and some not",
                    next_step=f'write namespaces="{",".join(ssh_signatures.NAMESPACES)}"',
                )
            if not any(able):
                return None
        elif name in {"valid-after", "valid-before"} and value is not None:
            moments[name] = _moment(value, line_name)
        else:
            raise UsageError(
                f"{line_name}: the option {name} is not known here",
                next_step="namespaces, valid-after and valid-before are; certificates are not read",
            )
    return moments.get("valid-after"), moments.get("valid-before")


def _moment(text: str, line_name: str) -> datetime:
    """Return a time as ssh-keygen(1) has it: digits, of local time unless a Z follows."""
    digits, zone = text.removesuffix("Z"), UTC if text.endswith("Z") else None
    form = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits), "")
    try:
        return datetime.strptime(digits, form).replace(tzinfo=zone).astimezone(UTC)
    except ValueError as exc:
        raise UsageError(
            f"{line_name}: {text!r} is not a time", next_step="write YYYYMMDD or YYYYMMDDHHMMZ"
        ) from exc

"""Whose signatures count: OpenSSH's ``allowed_signers`` file (ssh-keygen(1), "ALLOWED SIGNERS")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from msgspec import Struct

from migrate.bundle.findings import Finding
from migrate.custody.signing import keys, ssh_signatures
from migrate.custody.signing.keys import PublicKey
from migrate.errors import UsageError

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(
    rf"(?P<principals>{_QUOTED}|\S+)\s+(?:(?P<options>(?:{_QUOTED}|[^\s\"])+)\s+)?(?P<key>{keys.TYPE}\s.*)"
)
_OPTION = re.compile(r"(?P<name>[^=,\s]+)(?:=\"(?P<value>[^\"]*)\")?,?")


class Trust(Struct, frozen=True):
    """The keys that are known, with the names (principals) that our side gives them."""

    names: Mapping[PublicKey, str]
    source: str

    def name(self, public: PublicKey) -> str | None:
        """Return what our side calls the key's owner, None where the list lacks it."""
        return self.names.get(public)

    def missing(self, signers: Iterable[PublicKey], signed_thing: str) -> list[Finding]:
        """Return a finding where none of ``signers`` is known."""
        if any(self.name(public) for public in signers):
            return []
        return [Finding(signed_thing, f"is signed by nobody in {self.source}")]


def load(path: Path) -> Trust:
    """Read an ``allowed_signers`` file: principals, then perhaps options, key type, key. A key that its options keep
    from signing here counts for nothing, as with ``ssh-keygen``. Raises ``UsageError``.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(
            f"the list of signers {path} cannot be read: {exc}",
            next_step="name a file with lines as `moveout keys show` prints them, each behind a name",
        ) from exc
    names: dict[PublicKey, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        public = keys.parse_line(match["key"]) if match else None
        if match is None or public is None:
            raise UsageError(
                f"{path} line {number} names no Ed25519 key",
                next_step="write: NAME ssh-ed25519 AAAA… (a line that `moveout keys show` prints)",
            )
        if _counts(match["options"] or "", datetime.now(UTC), f"{path} line {number}"):
            names[public] = match["principals"].strip('"')
    return Trust(names, str(path))


def _counts(options: str, now: datetime, line_name: str) -> bool:
    """Tell whether a key may sign what moveout signs, now. Raises ``UsageError`` for an option that is not known."""
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
                return False
        elif name in {"valid-after", "valid-before"} and value is not None:
            moment = _moment(value, line_name)
            if now < moment if name == "valid-after" else now >= moment:
                return False
        else:
            raise UsageError(
                f"{line_name}: the option {name} is not known here",
                next_step="namespaces, valid-after and valid-before are; certificates are not read",
            )
    return True


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

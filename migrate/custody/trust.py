"""Whose signatures count: OpenSSH's ``allowed_signers`` file (ssh-keygen(1), "ALLOWED SIGNERS")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from migrate.bundle.findings import Finding
from migrate.custody import keys
from migrate.custody.keys import PublicKey
from migrate.errors import UsageError


@dataclass(frozen=True, slots=True)
class Trust:
    """The keys that are known, with the names (principals) that our side gives them."""

    names: Mapping[PublicKey, str]
    source: str

    def name(self, public: PublicKey) -> str | None:
        """Return what our side calls the key's owner, None where nobody knows him."""
        return self.names.get(public)

    def missing(self, signers: Iterable[PublicKey], what: str) -> list[Finding]:
        """Return a finding where none of ``signers`` is known."""
        if any(self.name(public) for public in signers):
            return []
        return [Finding(what, f"is signed by nobody in {self.source}")]


def load(path: Path) -> Trust:
    """Read an ``allowed_signers`` file: principals, then perhaps options, key type, key. Raises ``UsageError``."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"the list of signers {path} cannot be read: {exc}") from exc
    found: dict[PublicKey, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        principals, _, rest = line.strip().partition(" ")
        at = rest.find(keys.TYPE)
        public = keys.parse_line(rest[at:]) if at >= 0 else None
        if public is None:
            raise UsageError(
                f"{path} line {number} names no Ed25519 key",
                next_step="write: NAME ssh-ed25519 AAAA… (a line that `moveout keys show` prints)",
            )
        found[public] = principals
    return Trust(found, str(path))

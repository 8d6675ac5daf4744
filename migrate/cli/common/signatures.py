"""The signatures of a bundle, checked and shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from migrate.bundle.findings import Finding
from migrate.cli.common.findings import draw_findings
from migrate.cli.common.terminal import Console, Text
from migrate.custody.signing import timestamps
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey
from migrate.custody.signing.timestamps import Chain, Stamp
from migrate.custody.tree import bundle_tree
from migrate.number_text import moment_words
from migrate.storage.api import Store

_CHAINS: dict[Chain, str] = {
    "trusted": "its certificate is trusted",
    "self-signed": "the signature holds; add --timestamp-ca FILE to check who the authority is",
    "unknown": "NOT CHECKED: the token has no root certificate; name it with --timestamp-ca FILE",
}


class CheckedSignatures(Struct, frozen=True):
    """Who signed the tag manifest, each with the name that our list has for him, and what is wrong with signatures."""

    by: Sequence[tuple[PublicKey, str | None]]
    findings: Sequence[Finding]
    stamps: Sequence[tuple[str, Stamp]] = ()

    def as_json(self) -> dict[str, Any]:
        """Return signers, timestamps and findings."""
        signers = [{"fingerprint": public.fingerprint, "known_as": name} for public, name in self.by]
        stamped = [
            {"file": key, "at": stamp.moment, "by": stamp.authority, "chain": stamp.chain}
            for key, stamp in self.stamps
        ]
        findings = [finding.as_json() for finding in self.findings]
        return {"signers": signers, "timestamps": stamped, "findings": findings}

    def draw(self, console: Console) -> None:
        """Print who signed."""
        for public, name in self.by:
            console.print(
                f"Signed by {public.fingerprint}, {f'known as {name}' if name else 'whom no list names'}"
            )
        for key, stamp in self.stamps:
            sentence = f"There at {moment_words(stamp.moment)}, says {stamp.authority}"
            console.print(Text(f"{sentence}; {_CHAINS[stamp.chain]} ({key})"))
        if self.findings:
            console.print("Its signatures are not in order")
            draw_findings(console, self.findings)


def check_signatures(
    store: Store, trust: Trust | None, *, deep: bool, timestamp_ca: Path | None = None
) -> CheckedSignatures:
    """Check the signatures and the tree at a location (``deep``: over all items). With ``trust`` a signature by a key
    of its list must be there; with ``timestamp_ca`` each timestamp must be by an authority of that file.
    """
    roots = timestamps.load_roots(timestamp_ca) if timestamp_ca else []
    stamps, wrong = timestamps.stamps(store, roots)
    checked = bundle_tree.check_signed(store, trust, deep=deep)
    return CheckedSignatures(checked.by, [*checked.findings, *wrong], stamps)

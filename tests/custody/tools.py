"""Programs that know nothing of moveout, each asked about what is its own; who found what; and what speaks against an
erasure.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bagit

from migrate.bundle import layout
from migrate.custody import documents
from migrate.custody.erasure_objections import check_bundle
from migrate.custody.log import custody_log
from migrate.custody.signing import bundle_signatures
from migrate.custody.signing.keys import PublicKey
from scripts.timestamp_authority import Authority

Files = Mapping[str, bytes]
BESIDE = "beside/"
"""Proofs lie with their owner, not with the bundle."""
SCRIPT = Path(__file__).parents[2] / "docs" / "check_proof.py"
_SIGNATURE = re.compile(r"sig/(?P<file>.*)\.(?P<id>[0-9a-f]{16})\.sig")


def speaks_against(store, versions, breaches, by, trust=None):
    """Return why a bundle must not be erased, by its log and its receipts as they are now; see ``check_bundle``."""
    receipts = documents.read_all(store, "receipt")[0]
    log = custody_log.read(store)
    return check_bundle(store, versions, breaches, by, trust, log=log, receipts=receipts)


class Tools:
    """A directory with all files, and the programs that judge them."""

    def __init__(
        self, directory: Path, files: Files, authority: Authority, known: Sequence[PublicKey]
    ) -> None:
        self._directory, self._files, self._authority = directory, files, authority
        self._allowed = directory.with_name("allowed")
        self._allowed.write_text("".join(f"{key.id} {key.line}\n" for key in known))
        self._public = [directory.with_name(f"{key.id}.pub") for key in known]
        for path, key in zip(self._public, known, strict=True):
            path.write_text(key.line)
        for key, data in files.items():
            (directory / key).parent.mkdir(parents=True, exist_ok=True)
            (directory / key).write_bytes(data)

    def refuse(self, key: str, files: Files) -> list[str]:
        """Return the tools that find fault with ``files``, which differ from what is whole in ``key`` alone; only
        those whose business the file is are asked.
        """
        if key not in files:
            (self._directory / key).unlink()
        else:
            (self._directory / key).write_bytes(files[key])
        try:
            return [name for name in self.of(key) if not getattr(self, f"_{name}")(key, files)]
        finally:
            (self._directory / key).write_bytes(self._files[key])

    def of(self, key: str) -> list[str]:
        """Return the tools whose business a file is."""
        if key.startswith(BESIDE):
            return ["check_proof"]
        if not key.startswith(layout.SIGNATURES):
            return ["sha256sum", "bagit", *(["ssh_keygen"] if key == layout.TAG_MANIFEST else [])]
        if key.endswith(".tsr"):
            return ["openssl"]
        return ["ssh_keygen"] if key.endswith(".sig") or self._signatures(key) else []

    def may_accept(self, key: str, files: Files) -> bool:
        """Tell whether a tool may be content: nobody asked is, a signature in another dress still says the same, and
        openssl leaves open what no signature covers.
        """
        if not self.of(key) or key.endswith(".tsr"):
            return True
        return key.endswith(".sig") and key in files and _body(files[key]) == _body(self._files[key])

    def _sha256sum(self, key: str, files: Files) -> bool:
        argv = ["sha256sum", "--strict", "--quiet", "-c", layout.TAG_MANIFEST, layout.MANIFEST]
        return subprocess.run(argv, cwd=self._directory, capture_output=True, check=False).returncode == 0

    def _bagit(self, key: str, files: Files) -> bool:
        try:
            bagit.Bag(str(self._directory)).validate()
        except (bagit.BagError, ValueError, OSError):
            return False
        return True

    def _ssh_keygen(self, key: str, files: Files) -> bool:
        return all(self._verify(one, files) for one in self._signatures(key))

    def _verify(self, key: str, files: Files) -> bool:
        match = _SIGNATURE.fullmatch(key)
        assert match is not None
        signed = match["file"] if match["file"] == layout.TAG_MANIFEST else f"sig/{match['file']}"
        if key not in files or signed not in files:
            return False
        argv = ["ssh-keygen", "-Y", "verify", "-f", str(self._allowed), "-I", match["id"]]
        argv += ["-n", bundle_signatures.namespace_of(signed), "-s", str(self._directory / key)]
        return subprocess.run(argv, input=files[signed], capture_output=True, check=False).returncode == 0

    def _signatures(self, key: str) -> list[str]:
        if key.endswith(".sig"):
            return [key]
        name = key.rpartition("/")[2]
        return [one for one in self._files if (m := _SIGNATURE.fullmatch(one)) and m["file"] == name]

    def _openssl(self, key: str, files: Files) -> bool:
        return key in files and self._authority.verifies(files[key], files[layout.TAG_MANIFEST])

    def _check_proof(self, key: str, files: Files) -> bool:
        argv = [sys.executable, "-I", SCRIPT, self._directory / key]
        return all(
            subprocess.run([*argv, public], capture_output=True, check=False).returncode == 0
            for public in self._public
        )


def _body(signature: bytes) -> bytes:
    """Return what stands between the lines of an SSH signature's armor."""
    inner = re.search(rb"-----BEGIN SSH SIGNATURE-----(.*?)-----END SSH SIGNATURE-----", signature, re.DOTALL)
    try:
        return base64.b64decode(inner[1], validate=False) if inner else signature
    except ValueError:
        return signature


@dataclass
class Scoreboard:
    """Who found what. Every change that is added was found by moveout, by name."""

    changes: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)

    def add(self, key: str, refused: Sequence[str] | None) -> None:
        """Count a change to a file; ``refused``: the standard tools that found it, None where none was asked."""
        kind = _kind(key)
        self.changes += 1
        self.by_kind[kind] += 1
        if refused is not None:
            self.asked[kind] += 1
            self.found.update((kind, tool) for tool in refused)

    def __str__(self) -> str:
        lines = [f"\n{'what was changed':24} {'changes':>8} {'found and named':>16}   by standard tools"]
        for kind, count in sorted(self.by_kind.items()):
            tools = {tool: n for (one, tool), n in self.found.items() if one == kind}
            text = ", ".join(f"{tool} {n}/{self.asked[kind]}" for tool, n in sorted(tools.items()))
            lines.append(f"{kind:24} {count:8} {count:16}   {text}")
        return "\n".join([*lines, f"{'all':24} {self.changes:8} {self.changes:16}", ""])


def _kind(key: str) -> str:
    if key.startswith(BESIDE):
        return "proofs"
    if not key.startswith(layout.SIGNATURES):
        return "payload" if key.startswith(layout.DATA) else "tag files"
    name = key.rpartition("/")[2]
    if name.endswith(".sig"):
        return "signatures"
    if name.endswith(".tsr"):
        return "timestamp"
    if "custody" in name:
        return "custody log"
    return "tree" if key in {layout.TREE, layout.TREE_NODES, layout.CHECKPOINT} else "documents"

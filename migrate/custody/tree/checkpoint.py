"""The root of a tree, signed: a checkpoint as C2SP has it (c2sp.org/tlog-checkpoint, c2sp.org/signed-note).

moveout/<bundle's id> <number of leaves> <root hash, base64> tagmanifest-sha256 <the bundle's root, hex>

— moveout/<bundle's id> <base64 of the key's hash and the signature>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from migrate.custody.signing.keys import PublicKey, Signer

_ED25519 = b"\x01"
_BODY = re.compile(
    r"(?P<origin>\S+)\n(?P<size>0|[1-9]\d{0,18})\n(?P<hash>[A-Za-z0-9+/]{43}=)\n"
    r"tagmanifest-sha256 (?P<root>[0-9a-f]{64})\n"
)
_LINE = re.compile(r"— (?P<name>\S+) (?P<value>[A-Za-z0-9+/]{91}=)\n")
MAX_BYTES = 16_384


class Checkpoint(Struct, frozen=True):
    """A tree's size and root hash, and the root of the bundle whose tree it is. ``notes``: (key hash, signature) of
    each signature line.
    """

    bundle: str
    size: int
    hash: bytes
    root: str
    notes: Sequence[tuple[bytes, bytes]] = ()

    @property
    def origin(self) -> str:
        """The checkpoint's first line, and the name of the keys that sign it."""
        return f"moveout/{self.bundle}"

    @property
    def body(self) -> bytes:
        """What is signed."""
        text = f"{self.origin}\n{self.size}\n{base64.b64encode(self.hash).decode()}\ntagmanifest-sha256 {self.root}\n"
        return text.encode("ascii")

    def encode(self) -> bytes:
        """Return the whole note."""
        lines = (base64.b64encode(key + signature).decode() for key, signature in self.notes)
        return self.body + b"\n" + "".join(f"— {self.origin} {line}\n" for line in lines).encode()

    def signed(self, signer: Signer) -> Checkpoint:
        """Return it with one more signature; as it is where the key has signed."""
        if self.signers([signer.public]):
            return self
        note = (_key_hash(self.origin, signer.public), signer.sign(self.body))
        return Checkpoint(self.bundle, self.size, self.hash, self.root, sorted([*self.notes, note]))

    def signers(self, known: Iterable[PublicKey]) -> list[PublicKey]:
        """Return those of the known keys whose signature is there and holds."""
        return [
            public
            for public in known
            for key, signature in self.notes
            if key == _key_hash(self.origin, public) and public.checks(signature, self.body)
        ]

    def unknown(self, known: Sequence[PublicKey]) -> bool:
        """Tell whether there is a signature that is none of the known keys', or does not hold."""
        return len(self.signers(known)) != len(self.notes)


def decode(data: bytes) -> Checkpoint:
    """Read a checkpoint; its signatures are not checked yet. Raises ``ValueError``."""
    try:
        text = data[: MAX_BYTES + 1].decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ValueError("no UTF-8") from exc
    body, _, rest = text.partition("\n\n")
    match = _BODY.fullmatch(body + "\n")
    if match is None or not match["origin"].startswith("moveout/"):
        raise ValueError("no checkpoint of a bundle's tree")
    notes = [_note(line["value"]) for line in _LINE.finditer(rest) if line["name"] == match["origin"]]
    try:
        digest = base64.b64decode(match["hash"], validate=True)
    except binascii.Error as exc:
        raise ValueError("no checkpoint of a bundle's tree") from exc
    bundle = match["origin"].removeprefix("moveout/")
    checkpoint = Checkpoint(bundle, int(match["size"]), digest, match["root"], notes)
    if checkpoint.encode() != data or notes != sorted(notes):
        raise ValueError("not written as a checkpoint is")
    return checkpoint


def _note(value: str) -> tuple[bytes, bytes]:
    data = base64.b64decode(value, validate=True)
    return data[:4], data[4:]


def _key_hash(name: str, public: PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public.raw).digest()[:4]


def verifier(bundle: str, public: PublicKey) -> str:
    """Return the key as other readers of signed notes take it: ``name+hash+key``."""
    name = f"moveout/{bundle}"
    key = base64.b64encode(_ED25519 + public.raw).decode()
    return f"{name}+{_key_hash(name, public).hex()}+{key}"

"""Ed25519 keys in the files that OpenSSH uses, so that ``ssh-keygen`` can do all that moveout does with them.

The private key is in OpenSSH's own format, mode 0600, optionally under a passphrase; next to it lies ``<file>.pub``
with the owner's name as its comment.

The library ``cryptography`` is imported where a key is used: most commands use none, and its import is a tenth of
their start.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from msgspec import Struct

from exporters.structs import WithSecrets
from migrate.custody.signing import party_names, ssh_encoding
from migrate.errors import NotAllowedError, UsageError
from migrate.storage.local.errors import translate_os
from migrate.storage.local.whole_file import sync_directory

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import KeySerializationEncryption

TYPE = "ssh-ed25519"


class PublicKey(Struct, frozen=True):
    """An Ed25519 key that checks signatures. ``raw`` is its 32 bytes (RFC 8032); ``name`` is what its owner calls
    himself, and proves nothing.
    """

    raw: bytes
    name: str = ""

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, PublicKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    @property
    def blob(self) -> bytes:
        """The key as the SSH protocol has it (RFC 8709)."""
        return ssh_encoding.string(TYPE.encode()) + ssh_encoding.string(self.raw)

    @property
    def fingerprint(self) -> str:
        """``SHA256:…``, as ``ssh-keygen -l`` prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def id(self) -> str:
        """16 hex digits of the same hash: for names of files."""
        return hashlib.sha256(self.blob).hexdigest()[:16]

    @property
    def line(self) -> str:
        """The line of a ``.pub`` file, without a newline."""
        return f"{TYPE} {base64.b64encode(self.blob).decode()} {self.name}".rstrip()

    def checks(self, signature: bytes, data: bytes) -> bool:
        """Tell whether ``signature`` (64 bytes) is this key's over ``data``."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  see above
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer(Protocol):
    """Whoever can sign: a key file, or a key that an ssh-agent holds."""

    @property
    def public(self) -> PublicKey:
        """What checks its signatures."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature over ``data`` itself."""
        ...


class KeyFile(WithSecrets, frozen=True):
    """A private key that was read from a file."""

    SECRETS: ClassVar[frozenset[str]] = frozenset({"_private"})

    public: PublicKey
    _private: Ed25519PrivateKey

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes (RFC 8032)."""
        return self._private.private_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """See ``Signer.sign``."""
        return self._private.sign(data)


def create(path: Path, name: str, passphrase: str | None) -> KeyFile:
    """Make a key and write it to ``path`` (0600) and ``path.pub``, or nothing. Raises ``UsageError`` where a file is
    there, or no party may have the name.
    """
    name = " ".join(name.split())
    if wrong := party_names.objection(name):
        raise UsageError(f"the name {name!a} {wrong}", next_step="write another: --name NAME")
    if path.suffix == ".pub":
        raise UsageError(
            f"{path} is named like a public half", next_step="name the private one: its .pub lies next to it"
        )
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    private = Ed25519PrivateKey.generate()
    seal: KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        seal = serialization.BestAvailableEncryption(passphrase.encode())
    data = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, seal)
    key_file = KeyFile(PublicKey(private.public_key().public_bytes_raw(), name), private)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_new(path, data, 0o600)
        try:
            _write_new(public_half(path), key_file.public.line.encode() + b"\n", 0o644)
        except OSError:
            path.unlink()
            raise
        sync_directory(path.parent)
    except FileExistsError as exc:
        raise UsageError(
            f"there is a file {exc.filename} already",
            next_step="name another, or remove it if it is not needed",
        ) from exc
    except OSError as exc:
        raise translate_os(exc, path) from exc
    return key_file


def load(path: Path, passphrase: Callable[[], str | None]) -> KeyFile:
    """Read a private key; ``passphrase`` is asked only where the file needs one.

    Raises ``UsageError`` (no such file, no Ed25519 key, no passphrase given), ``NotAllowedError`` (others may read it,
    or the passphrase is wrong).
    """
    try:
        data = path.read_bytes()
        if path.stat().st_mode & 0o077:
            raise NotAllowedError(f"others may read the key {path}", next_step=f"chmod 600 {path}")
    except OSError as exc:
        raise UsageError(
            f"the key {path} cannot be read: {exc.strerror}", next_step="moveout keys init makes one"
        ) from exc
    private = _decode(path, data, passphrase)
    return KeyFile(PublicKey(private.public_key().public_bytes_raw(), _name(path)), private)


def _decode(path: Path, data: bytes, passphrase: Callable[[], str | None]) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  see above

    try:
        private = _load(data, None)
    except TypeError:
        secret = passphrase()
        if not secret:
            raise UsageError(
                f"the key {path} has a passphrase and none is given",
                next_step="set MOVEOUT_PASSPHRASE, or name it: --passphrase file:PATH (or env:VAR, command:PROGRAM …);"
                f" where an ssh-agent has the key, name its public half: --key {public_half(path)}",
            ) from None
        try:
            private = _load(data, secret.encode())
        except (TypeError, ValueError) as exc:
            raise NotAllowedError(
                f"the passphrase does not open the key {path}",
                next_step="look at what --passphrase, MOVEOUT_PASSPHRASE or [custody] passphrase names",
            ) from exc
    except ValueError as exc:
        raise UsageError(f"{path} holds no private key in OpenSSH's format") from exc
    if not isinstance(private, Ed25519PrivateKey):
        raise UsageError(f"{path} is not an Ed25519 key", next_step="moveout keys init makes one")
    return private


def _load(data: bytes, passphrase: bytes | None) -> object:
    """Raises ``TypeError`` where a passphrase is needed, ``ValueError`` for anything else."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  see above

    try:
        return serialization.load_ssh_private_key(data, passphrase)
    except ValueError as exc:
        if passphrase is None and "assword" in str(exc):
            raise TypeError from exc
        raise


def load_public(path: Path) -> PublicKey:
    """Read a ``.pub`` file. Raises ``UsageError``, also for a name that no party may have."""
    try:
        public = parse_line(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(
            f"the key {path} cannot be read: {_why(exc)}",
            next_step="ssh-keygen -y -f KEY prints the public half, ssh-add -L an agent's",
        ) from exc
    if public is None:
        raise UsageError(
            f"{path} is the public half of no Ed25519 key", next_step="moveout keys init makes one"
        )
    _check_name(public, path)
    return public


def _check_name(public: PublicKey, path: Path) -> None:
    if public.name and (wrong := party_names.objection(public.name)):
        raise UsageError(
            f"{path}: the name {public.name!a} {wrong}",
            next_step="write another behind the key in this file",
        )


def parse_line(line: str) -> PublicKey | None:
    """Return the key of a ``.pub`` line, None where it is none of ours."""
    fields = line.split(maxsplit=2)
    if len(fields) < 2 or fields[0] != TYPE:
        return None
    try:
        return from_blob(
            base64.b64decode(fields[1], validate=True), fields[2].strip() if len(fields) > 2 else ""
        )
    except ValueError:
        return None


def from_blob(blob: bytes, name: str = "") -> PublicKey:
    """Return the key in SSH's encoding. Raises ``ValueError`` for anything but an Ed25519 key."""
    kind, rest = ssh_encoding.take_string(blob)
    raw, rest = ssh_encoding.take_string(rest)
    if kind != TYPE.encode() or len(raw) != 32 or rest:
        raise ValueError("no Ed25519 key")
    return PublicKey(raw, name)


def _name(path: Path) -> str:
    try:
        public = parse_line(public_half(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if public is None:
        return ""
    _check_name(public, public_half(path))
    return public.name


def _why(exc: OSError | UnicodeDecodeError) -> str:
    return exc.strerror or str(exc) if isinstance(exc, OSError) else "it is no text"


def public_half(path: Path) -> Path:
    """Return the file with the public half of the key in ``path``, which may be that file itself."""
    return path if path.suffix == ".pub" else path.with_name(path.name + ".pub")


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        path.unlink()
        raise

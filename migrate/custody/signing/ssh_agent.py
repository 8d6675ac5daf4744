"""Keys that an ssh-agent holds: it signs, and never shows the private half.

The protocol is draft-ietf-sshm-ssh-agent ("SSH Agent Protocol"): each message is its length, a byte that says its kind,
and its contents, over a socket that ``SSH_AUTH_SOCK`` names.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from msgspec import Struct

from migrate.custody.signing import keys, ssh_encoding
from migrate.custody.signing.keys import KeyFile, PublicKey
from migrate.errors import DamageError, NotAllowedError, UnreachableError, UsageError

VARIABLE = "SSH_AUTH_SOCK"
_SUCCESS, _LIST, _LISTED, _SIGN, _SIGNED, _ADD = 6, 11, 12, 13, 14, 17
_MAX_BYTES = 256 * 1024
"""OpenSSH's agent takes and sends no longer messages."""
_SECONDS = 120.0
"""An agent may ask its owner whether a key may be used (``ssh-add -c``)."""


class Agent(Struct, frozen=True):
    """A running agent, by its socket. Each request is a connection of its own, so several threads may use it.

    Raises ``UnreachableError``.
    """

    path: str

    def public_keys(self) -> list[PublicKey]:
        """Return the Ed25519 keys that the agent has, with the comments that it has for them."""
        body = self._ask(_LIST, b"", _LISTED)
        if body is None:
            raise NotAllowedError(
                f"the ssh-agent at {self.path} shows no keys", next_step="is it locked? ssh-add -X"
            )
        count, body = ssh_encoding.take_number(body)
        public_keys_ = []
        for _ in range(count):
            blob, body = ssh_encoding.take_string(body)
            comment, body = ssh_encoding.take_string(body)
            try:
                public_keys_.append(keys.from_blob(blob, comment.decode("utf-8", "replace")))
            except ValueError:  # of another type: it may serve for logging in
                continue
        return public_keys_

    def sign(self, public: PublicKey, data: bytes) -> bytes:
        """Return the 64 bytes of the key's signature. Raises ``NotAllowedError`` where the agent (or its owner, who was
        asked) refuses, ``DamageError`` where what it returns does not hold.
        """
        request = ssh_encoding.string(public.blob) + ssh_encoding.string(data) + ssh_encoding.number(0)
        body = self._ask(_SIGN, request, _SIGNED)
        if body is None:
            raise NotAllowedError(
                f"the ssh-agent does not sign with {public.fingerprint} {public.name}".rstrip(),
                next_step="confirm the use of the key, unlock the agent (ssh-add -X), or add the key: ssh-add FILE",
            )
        signature, _ = ssh_encoding.take_string(body)
        kind, rest = ssh_encoding.take_string(signature)
        raw, _ = ssh_encoding.take_string(rest)
        if kind != keys.TYPE.encode() or not public.checks(raw, data):
            raise DamageError(
                self.path, expected="a signature that holds", found="another from the ssh-agent"
            )
        return raw

    def add(self, key: KeyFile) -> None:
        """Give the agent a key, for as long as it runs."""
        pair = key.seed + key.public.raw
        parts = (keys.TYPE.encode(), key.public.raw, pair, key.public.name.encode())
        if self._ask(_ADD, b"".join(map(ssh_encoding.string, parts)), _SUCCESS) is None:
            raise NotAllowedError(
                f"the ssh-agent at {self.path} takes no key", next_step="is it locked? ssh-add -X"
            )

    def _ask(self, kind: int, body: bytes, expected_kind: int) -> bytes | None:
        """Return the answer's contents, None for any other answer than ``expected_kind``: the agent refuses."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_SECONDS)
                connection.connect(self.path)
                connection.sendall(ssh_encoding.string(bytes([kind]) + body))
                response = _received(connection, ssh_encoding.take_number(_received(connection, 4))[0])
        except (OSError, ValueError) as exc:
            raise UnreachableError(
                f"the ssh-agent at {self.path} does not answer: {exc}",
                next_step=f"check {VARIABLE}; ssh-add -l",
            ) from exc
        return response[1:] if response[:1] == bytes([expected_kind]) else None


class AgentKey(Struct, frozen=True):
    """A key of an agent's; signs as ``keys.Signer`` says."""

    public: PublicKey
    agent: Agent

    def sign(self, data: bytes) -> bytes:
        """See ``Signer.sign``."""
        return self.agent.sign(self.public, data)


def running() -> Agent:
    """Return the agent that ``SSH_AUTH_SOCK`` names. Raises ``UsageError`` where there is none."""
    path = os.environ.get(VARIABLE, "")
    if not path:
        raise UsageError(
            f"no ssh-agent is running: {VARIABLE} is not set", next_step='eval "$(ssh-agent)"; ssh-add FILE'
        )
    return Agent(path)


def load(path: Path) -> AgentKey:
    """Return the agent's key whose public half is in the file, as ``ssh-keygen -Y sign -f FILE.pub`` takes it. Raises
    ``UsageError`` where the agent has not got it.
    """
    public, agent = keys.load_public(path), running()
    if public not in agent.public_keys():
        raise UsageError(
            f"the ssh-agent has not got the key {public.fingerprint} of {path}",
            next_step="ssh-add the private key; ssh-add -L lists what it has",
        )
    return AgentKey(public, agent)


def _received(connection: socket.socket, size: int) -> bytes:
    if size > _MAX_BYTES:
        raise ValueError("its answer is too long")
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ValueError("it hung up")
        data += piece
    return data

"""Secrets: where they are, instead of what they are, and URLs without them."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from msgspec import Struct, field

from migrate.engines import registry
from migrate.errors import UsageError


class Secret(Struct, frozen=True):
    """A reference to a secret; its value is fetched by ``reveal`` and never shown."""

    reference: str
    directory: Path = field(default_factory=Path)

    def reveal_key(self) -> str:
        """Return an encryption key of 256 bits in base64. It is kept as 32 bytes, or as text: in base64 or hex digits.
        Raises ``UsageError``.
        """
        kind, _, rest = self.reference.partition(":")
        if kind == "file":
            path = self.directory / Path(rest).expanduser()
            try:
                data = path.read_bytes()
            except OSError as exc:
                raise _unreadable(path, exc) from exc
        else:
            data = self.reveal().encode()
        key = next((candidate for candidate in _as_keys(data) if len(candidate) == _KEY_BYTES), None)
        if key is None:
            raise UsageError(
                f"{self.reference} holds no key of 256 bits",
                next_step="keep it as 32 bytes, as base64 (44 characters), or as 64 hex digits",
            )
        return base64.b64encode(key).decode()

    def reveal(self) -> str:
        """Return the secret. Raises ``UsageError`` that names the reference, not the value."""
        kind, _, rest = self.reference.partition(":")
        if kind == "env":
            value = self._from_environment(rest)
        elif kind == "file":
            value = self._from_file(self.directory / Path(rest).expanduser())
        else:
            value = self._from_command(rest)
        _remember(value)
        return value

    @staticmethod
    def _from_environment(name: str) -> str:
        try:
            return os.environ[name]
        except KeyError:
            raise UsageError(f"the environment has no {name}", next_step=f"export {name}=…") from None

    @staticmethod
    def _from_file(path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise _unreadable(path, exc) from exc

    @staticmethod
    def _from_command(line: str) -> str:
        try:
            completed = subprocess.run(
                shlex.split(line), stdout=subprocess.PIPE, text=True, check=True, timeout=60
            )
        except (OSError, ValueError, IndexError, subprocess.SubprocessError) as exc:
            program = line.split(maxsplit=1)[:1] or ["?"]
            raise UsageError(
                f"the secret's command {program[0]!r} failed: {_reason(exc)}",
                next_step="run it by hand: it has to print the secret, and nothing else",
            ) from exc
        return completed.stdout.rstrip("\r\n")


CUSTOMER_KEY = "sse_c"
"""The name of a key of the customer's own with which objects of a bucket are encrypted (SSE-C)."""
_KEY_BYTES = 32


def _as_keys(data: bytes) -> Iterator[bytes]:
    """Yield what a key may be that is kept in one way or another."""
    yield data
    text = data.strip()
    for decode in (binascii.unhexlify, partial(base64.b64decode, validate=True)):
        with suppress(ValueError):
            yield decode(text)


def _unreadable(path: Path, exc: Exception) -> UsageError:
    return UsageError(
        f"the secret's file {path} cannot be read: {_reason(exc)}",
        next_step="write the secret there, as one line, or name another file",
    )


def is_reference(text: Any) -> bool:
    """Tell whether ``text`` may name a secret: ``env:VAR``, ``file:PATH`` or ``command:PROGRAM …``."""
    return isinstance(text, str) and text.partition(":")[0] in {"env", "file", "command"} and ":" in text


def _reason(exc: Exception) -> str:
    if isinstance(exc, subprocess.CalledProcessError):
        return f"it ended with {exc.returncode}"
    if isinstance(exc, subprocess.TimeoutExpired):
        return f"no answer within {exc.timeout:.0f} s"
    return getattr(exc, "strerror", None) or type(exc).__name__


# A password may have "@" and "/" in it that nobody has escaped: it ends at the last "@". What is a port is none.
_PASSWORD = re.compile(r"(?<=://)([^/@:\[]*):(?!\d+[/,?]).*@", re.DOTALL)
_PASSWORD_IN_TEXT = re.compile(r"(?<=://)([^/@:\[\s]*):(?!\d+[/,?])(?:(?!://)\S)*@")
_OPTION = re.compile(r"(?<=[?&\s])([\w%.-]+)=([^&]*?)(?=&|$|\s\w+=)")
_OPTION_IN_TEXT = re.compile(r"(?<=[?&\s])([\w%.-]+)=([^&\s'\"]*)")
_SECRET_OPTION = re.compile(r"passw|pwd$|secret|token|signature|^scram_.*_key$", re.IGNORECASE)


_PASSPHRASE_VARIABLE = "MOVEOUT_PASSPHRASE"  # noqa: S105 - a name
_LEAST_SECRET = 4
"""Shorter ones stand in too many words to be left out of a text."""
_used_secrets: set[str] = set()


def _remember(value: str) -> None:
    if len(value) >= _LEAST_SECRET:
        _used_secrets.update({value, json.dumps(value, ensure_ascii=False)[1:-1]})


def remember_url_secrets(url: str) -> None:
    """Let ``hide_secrets`` know the password of a URL, as it is written and as it is meant."""
    written = [match[0].rstrip("@").partition(":")[2] for match in _PASSWORD.finditer(url)]
    written += [match[2] for match in _OPTION.finditer(url) if _is_secret(match)]
    for secret in written:
        _remember(secret)
        _remember(unquote(secret))


def _is_secret(option: re.Match[str]) -> bool:
    """Tell whether the value of an option is no reference, and of a name as secrets have it."""
    name = unquote(option[1])
    return not is_reference(option[2]) and (name == CUSTOMER_KEY or _SECRET_OPTION.search(name) is not None)


def _without_value(option: re.Match[str]) -> str:
    return f"{option[1]}=…" if _is_secret(option) else option[0]


def hide_secrets(text: str) -> str:
    """Return text without any secret that this process has used, or that its environment has."""
    for name in (_PASSPHRASE_VARIABLE, *registry.secret_variables()):
        _remember(os.environ.get(name, ""))
    for secret in sorted(_used_secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return hide_url_passwords(text)


def hide_url_passwords(text: str) -> str:
    """Return text, such as the message of a library, without the passwords of URLs in it."""
    return _OPTION_IN_TEXT.sub(_without_value, _PASSWORD_IN_TEXT.sub(r"\1:…@", text))


def redact(url: str) -> str:
    """Return a URL without its password."""
    return _OPTION.sub(_without_value, _PASSWORD.sub(r"\1:…@", url))

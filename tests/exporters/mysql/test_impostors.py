"""Whoever answers in the place of a MySQL server gets no password that others could read."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from exporters.errors import SourceError, SourceNotAllowedError
from exporters.mysql import connection
from exporters.mysql.connection import connect, parse_url
from scripts.servers import make_certificate
from tests.tools.small_servers import serving

PASSWORD = "given-to-nobody-else"
_CAPABILITIES = 0xFFFFFFFF & ~(1 << 11) & ~(1 << 24)
"""All but TLS, and sessions that pass for ended."""


def _packet(number: int, data: bytes) -> bytes:
    return len(data).to_bytes(3, "little") + bytes([number]) + data


@contextmanager
def impostor(asks: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Greet without TLS, then ask for something. Yield the port, and what clients send."""
    heard: list[bytes] = []
    low, high = _CAPABILITIES & 0xFFFF, _CAPABILITIES >> 16
    greeting = b"\x0a8.0.99\0" + struct.pack("<I9sHBHHB10x", 7, b"12345678", low, 33, 2, high, 21)
    greeting += b"901234567890\0mysql_native_password\0"

    def answer(client: socket.socket) -> None:
        client.sendall(_packet(0, greeting))
        heard.append(client.recv(4096))
        client.sendall(_packet(2, b"\xfe" + asks))
        heard.append(client.recv(4096))

    with serving(answer) as port:
        yield port, heard


@pytest.mark.parametrize(
    "asks", [b"mysql_clear_password\0", b"dialog\0\x02Password: "], ids=["clear", "dialog"]
)
def test_a_password_crosses_no_network_in_clear(monkeypatch, asks):
    monkeypatch.setenv("MYSQL_PWD", PASSWORD)
    monkeypatch.setattr(connection, "is_local", lambda _host: False)
    with impostor(asks) as (port, heard):
        with pytest.raises(SourceNotAllowedError, match="in clear") as error:
            connect(parse_url(f"mysql://me@127.0.0.1:{port}/app"))
        assert "ssl-mode" in error.value.next_step
    assert PASSWORD.encode() not in b"".join(heard)


def test_whoever_names_an_authority_gets_its_certificate_checked(monkeypatch, tmp_path):
    monkeypatch.setenv("MYSQL_PWD", PASSWORD)
    authority = make_certificate(tmp_path, "127.0.0.1")
    with impostor(b"mysql_clear_password\0") as (port, heard), pytest.raises(SourceError, match="SSL"):
        connect(parse_url(f"mysql://me@127.0.0.1:{port}/app?ssl-ca={authority}"))
    assert PASSWORD.encode() not in b"".join(heard)

"""The certificate that a server shows, and what is wrong with it. Nothing is sent but the greeting of TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509
from msgspec import Struct

from exporters.doctor import Finding, Fix
from exporters.host_address import is_address

_SECONDS = 5.0
_SOON = timedelta(days=7)


class Certificate(Struct, frozen=True):
    """A server's certificate. ``names`` are DNS names and addresses; ``protocol`` is that of the connection."""

    names: tuple[str, ...]
    expires: datetime
    protocol: str = ""

    def is_for(self, host: str) -> bool:
        """Tell whether a host is among the names; a star stands for one label (RFC 6125)."""
        hostname = host.lower().rstrip(".")
        parent = hostname.partition(".")[2]
        return any(name == hostname or (name.startswith("*.") and name[2:] == parent) for name in self.names)


def read_certificate(der: bytes, protocol: str) -> Certificate:
    """Return what a certificate says."""
    certificate = x509.load_der_x509_certificate(der)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        listed = [str(name).lower() for name in names.get_values_for_type(x509.DNSName)]
        listed += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        listed = [str(attribute.value).lower() for attribute in common]
    return Certificate(tuple(listed), certificate.not_valid_after_utc, protocol)


def ask_certificate(
    host: str, port: int, greet: Callable[[socket.socket], None] | None = None
) -> Certificate:
    """Return the certificate of a server. ``greet`` asks it for TLS first. Raises ``OSError``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is looked at, not trusted
    with socket.create_connection((host, port), timeout=_SECONDS) as plain:
        if greet:
            greet(plain)
        with context.wrap_socket(plain, server_hostname=None if is_address(host) else host) as secure:
            der = secure.getpeercert(binary_form=True)
            if der is None:
                raise OSError("the server shows no certificate")
            return read_certificate(der, secure.version() or "")


def certificate_findings(
    certificate: Certificate, host: str, *, server: str, strict: str, deadline: datetime | None
) -> Iterator[Finding]:
    """Yield what is wrong with a certificate. ``strict`` names the mode of connecting that would refuse it."""
    now = datetime.now(UTC)
    until = certificate.expires.strftime("%Y-%m-%d %H:%M UTC")
    renew = Fix("advice", f"renew the certificate of {server}, and reload the server", server)
    if certificate.expires <= now:
        problem = f"its certificate has expired ({until})"
        yield Finding(
            "info", "TLS", server, problem, f"A client that checks it ({strict}) is refused.", renew
        )
    elif certificate.expires <= max(deadline or now, now + _SOON):
        problem = f"its certificate expires {until}"
        consequence = f"From then on a client that checks it ({strict}) is refused."
        yield Finding("info", "TLS", server, problem, consequence, renew)
    if host and not certificate.is_for(host):
        problem = f"its certificate is for {', '.join(certificate.names) or 'no name'}, not for {host}"
        consequence = f"A client that checks the name ({strict}) is refused."
        advice = Fix("advice", f"connect by a name of the certificate, or renew it for {host}", server)
        yield Finding("info", "TLS", server, problem, consequence, advice)


def clear_text(server: str, fix: Fix) -> Finding:
    """Return the finding that traffic to another machine is not encrypted."""
    return Finding(
        "info",
        "TLS",
        server,
        "the connection is not encrypted",
        "Whoever sees the network can read the rows while they travel.",
        fix,
    )


def tls_facts(certificate: Certificate | None) -> dict[str, str]:
    """Return the state of TLS for a table: the protocol, and until when the certificate holds."""
    if certificate is None:
        return {"TLS": "none"}
    return {"TLS": certificate.protocol or "yes", "certificate": f"{certificate.expires:%Y-%m-%d}"}

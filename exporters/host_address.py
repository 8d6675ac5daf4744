"""What a host of a URL is: an address or a name, this machine or another."""

from __future__ import annotations

import ipaddress


def is_local(host: str) -> bool:
    """Tell whether a host is this machine, so that traffic crosses no network. A path is a socket's folder."""
    if not host or host == "localhost" or host.startswith("/"):
        return True
    return is_address(host) and ipaddress.ip_address(host).is_loopback


def is_address(host: str) -> bool:
    """Tell whether a host is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

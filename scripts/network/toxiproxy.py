"""The control side of a toxiproxy: proxies that cut, slow down or stall the connections through them."""

from __future__ import annotations

import json
import secrets
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from scripts.process import free_port


@dataclass(frozen=True, slots=True)
class Proxy:
    """A listening proxy. ``endpoint`` takes the place of the server's own (``http://host:port``)."""

    api: str
    name: str
    host: str
    port: int

    @property
    def endpoint(self) -> str:
        """The proxy as an HTTP endpoint."""
        return f"http://{self.host}:{self.port}"

    def add(self, kind: str, *, stream: str = "downstream", **attributes: Any) -> str:
        """Add a toxic (``latency``, ``bandwidth``, ``reset_peer``, ``limit_data`` …), return its name."""
        name = f"{kind}-{secrets.token_hex(4)}"
        toxic = {"name": name, "type": kind, "stream": stream, "toxicity": 1.0, "attributes": attributes}
        _call("POST", f"{self.api}/proxies/{self.name}/toxics", toxic)
        return name

    def remove(self, toxic: str) -> None:
        """Take a toxic away again."""
        _call("DELETE", f"{self.api}/proxies/{self.name}/toxics/{toxic}")

    def cut(self) -> None:
        """Refuse connections and drop those that are open."""
        _call("POST", f"{self.api}/proxies/{self.name}", {"enabled": False})

    def mend(self) -> None:
        """Accept connections again."""
        _call("POST", f"{self.api}/proxies/{self.name}", {"enabled": True})


@dataclass(frozen=True, slots=True)
class Toxiproxy:
    """A running toxiproxy; ``api`` is its control address."""

    api: str

    def proxy(self, endpoint: str) -> Proxy:
        """Put a proxy before a server's endpoint (``http://host:port`` or ``postgresql://user@host:port/db``)."""
        parts = urlsplit(endpoint)
        new_proxy = Proxy(self.api, f"proxy-{secrets.token_hex(4)}", "127.0.0.1", free_port())
        fields = {
            "name": new_proxy.name,
            "listen": f"{new_proxy.host}:{new_proxy.port}",
            "upstream": f"{parts.hostname}:{parts.port}",
        }
        _call("POST", f"{self.api}/proxies", {**fields, "enabled": True})
        return new_proxy


def _call(method: str, url: str, body: Any = None) -> None:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(
        url, data=data, method=method, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10):
        pass

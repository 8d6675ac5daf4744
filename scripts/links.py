"""Machines of their own, as far as the network goes: namespaces behind links of a set rate. Linux, root, iproute2.

ip-netns(8), veth(4), tc-tbf(8). A link is shaped in both directions, each at its own rate, as links to customers are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.process import ServerError

HERE = "10.213.255.1"
"""Under which all namespaces reach this machine."""
_LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class Link:
    """A namespace and what leads to it. ``prefix`` stands before the command of a process that is to run there."""

    name: str
    address: str
    device: str
    prefix: Sequence[str]

    def sent(self) -> int:
        """Return the bytes that have come from the namespace."""
        return int(Path(f"/sys/class/net/{self.device}/statistics/rx_bytes").read_text())


@contextmanager
def links(count: int, *, down_mbit: float, up_mbit: float) -> Iterator[list[Link]]:
    """Make so many namespaces, each behind a link of its own; take them away at the end. ``down`` is towards the
    namespace. Raises ``ServerError``.
    """
    program = shutil.which("ip")
    if os.geteuid() != 0 or program is None or shutil.which("tc") is None:
        raise ServerError("shaped links need Linux, root, and iproute2 (ip, tc)")
    made: list[Link] = []
    try:
        _ip("addr", "add", f"{HERE}/32", "dev", _LOOPBACK)
        for number in range(count):
            link = Link(
                f"moveout-{os.getpid()}-{number}",
                f"10.213.{number}.2",
                f"mvo{os.getpid() % 10**6}h{number}",
                (program, "netns", "exec", f"moveout-{os.getpid()}-{number}"),
            )
            made.append(link)
            _make(link, f"10.213.{number}.1", down_mbit, up_mbit)
        yield made
    finally:
        for link in made:
            with suppress(ServerError):
                _ip("netns", "del", link.name)
            with suppress(ServerError):
                _ip("link", "del", link.device)
        with suppress(ServerError):
            _ip("addr", "del", f"{HERE}/32", "dev", _LOOPBACK)


def _make(link: Link, gateway: str, down_mbit: float, up_mbit: float) -> None:
    inner = link.device.replace("h", "w")
    _ip("netns", "add", link.name)
    _ip("link", "add", link.device, "type", "veth", "peer", "name", inner, "netns", link.name)
    _ip("addr", "add", f"{gateway}/30", "dev", link.device)
    _ip("link", "set", link.device, "up")
    for words in (
        ("link", "set", _LOOPBACK, "up"),
        ("addr", "add", f"{link.address}/30", "dev", inner),
        ("link", "set", inner, "up"),
        ("route", "add", "default", "via", gateway),
    ):
        _ip("-n", link.name, *words)
    _run("tc", "qdisc", "add", "dev", link.device, *_shape(down_mbit))
    _run("tc", "-n", link.name, "qdisc", "add", "dev", inner, *_shape(up_mbit))


def _shape(rate_mbit: float) -> Sequence[str]:
    return ("root", "tbf", "rate", f"{rate_mbit}mbit", "burst", "256kb", "latency", "100ms")


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"{' '.join(words)}: {done.stderr.strip()}")

"""Machines of their own, as far as the network goes: namespaces behind links of a set rate, delay and loss. Linux,
root, iproute2.

ip-netns(8), veth(4), tc-tbf(8). A link is shaped in both directions, each at its own rate, as links to customers are.
Where packets are to be late, or to be lost, they take a detour (see ``scripts.network.detour``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.process import ServerError

_NET = f"10.{100 + os.getpid() % 100}"
"""Others may measure at the same time."""
HERE = f"{_NET}.255.1"
"""Under which all namespaces of this process reach this machine."""
_LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a link is like. ``down`` is towards the namespace, ``delay`` there and back, ``loss`` of packets in each
    direction.
    """

    down_mbit: float
    up_mbit: float
    delay_ms: float = 0
    loss: float = 0


@dataclass(frozen=True, slots=True)
class Link:
    """A namespace and what leads to it. ``prefix`` stands before the command of a process that is to run there."""

    name: str
    address: str
    device: str
    prefix: Sequence[str]

    def sent(self) -> int:
        """Return the bytes that have come from the namespace."""
        return self._count("rx_bytes")

    def received(self) -> int:
        """Return the bytes that have gone to the namespace."""
        return self._count("tx_bytes")

    def _count(self, counter_name: str) -> int:
        return int(Path(f"/sys/class/net/{self.device}/statistics/{counter_name}").read_text())


@contextmanager
def links(count: int, shape: Shape) -> Iterator[list[Link]]:
    """Make so many namespaces, each behind a link of its own; take them away at the end. Raises ``ServerError``."""
    program = shutil.which("ip")
    if os.geteuid() != 0 or program is None or shutil.which("tc") is None:
        raise ServerError("shaped links need Linux, root, and iproute2 (ip, tc)")
    made_links: list[Link] = []
    _ip("addr", "add", f"{HERE}/32", "dev", _LOOPBACK)
    with ExitStack() as detours:
        try:
            for number in range(count):
                link = Link(
                    f"moveout-{os.getpid()}-{number}",
                    f"{_NET}.{number}.2",
                    f"mvo{os.getpid() % 10**6}h{number}",
                    (program, "netns", "exec", f"moveout-{os.getpid()}-{number}"),
                )
                made_links.append(link)
                _make(link, f"{_NET}.{number}.1", shape, detours)
            yield made_links
        finally:
            for link in made_links:
                with suppress(ServerError):
                    _ip("netns", "del", link.name)
                with suppress(ServerError):
                    _ip("link", "del", link.device)
            with suppress(ServerError):
                _ip("addr", "del", f"{HERE}/32", "dev", _LOOPBACK)


def _make(link: Link, gateway: str, shape: Shape, detours: ExitStack) -> None:
    inner = link.device.replace("h", "w")
    _ip("netns", "add", link.name)
    if shape.delay_ms or shape.loss:
        detours.enter_context(_detour(link.device, inner, shape))
        _ip("link", "set", inner, "netns", link.name)
    else:
        _ip("link", "add", link.device, "type", "veth", "peer", "name", inner, "netns", link.name)
    _ip("addr", "add", f"{gateway}/30", "dev", link.device)
    _ip("link", "set", link.device, "up")
    for arguments in (
        ("link", "set", _LOOPBACK, "up"),
        ("addr", "add", f"{link.address}/30", "dev", inner),
        ("link", "set", inner, "up"),
        ("route", "add", "default", "via", gateway),
    ):
        _ip("-n", link.name, *arguments)
    _run("tc", "qdisc", "add", "dev", link.device, *_queue(shape.down_mbit))
    _run("tc", "-n", link.name, "qdisc", "add", "dev", inner, *_queue(shape.up_mbit))


@contextmanager
def _detour(outer: str, inner: str, shape: Shape) -> Iterator[None]:
    arguments = ["--late-ms", str(shape.delay_ms / 2), "--loss", str(shape.loss)]
    command = [sys.executable, "-m", "scripts.network.detour", outer, inner, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if not process.stdout.readline():
            raise ServerError("packets cannot be led a longer way: is there a /dev/net/tun?")
        yield
        process.stdin.close()


def _queue(rate_mbit: float) -> Sequence[str]:
    """Return the words for a queue of 100 ms, and of 30 packets at least; what is more is lost."""
    burst = max(4096, min(256 * 1024, round(rate_mbit * 1e6 / 8 / 50)))
    room = max(round(rate_mbit * 1e6 / 8 / 10), 45_000)
    return ("root", "tbf", "rate", f"{rate_mbit}mbit", "burst", str(burst), "limit", str(room + burst))


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*arguments: str) -> None:
    completed = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if completed.returncode:
        raise ServerError(f"{' '.join(arguments)}: {completed.stderr.strip()}")

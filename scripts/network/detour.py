"""A long way between two network devices: every packet is late, and some are lost. Linux, root.

    python -m scripts.network.detour NAME NAME --late-ms 100 --loss 0.01

What tc-netem(8) does where the kernel has it. Two devices are made (tun(4)); what goes into one comes out of the other
after the time given, in order. Prints a line when they are there, ends when its input does.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_LARGEST_PACKET = 65536
_AT_ONCE = 64


@dataclass(slots=True)
class Lane:
    """One direction."""

    source: int
    destination: int
    late_seconds: float
    loss: float
    _under_way: deque[tuple[float, bytes]] = field(default_factory=deque, init=False)

    def take(self) -> None:
        """Take what is there now."""
        due_at = time.monotonic() + self.late_seconds
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(self.source, _LARGEST_PACKET)
            except OSError:  # nothing more now; or the device is being taken away
                return
            if random.random() >= self.loss:
                self._under_way.append((due_at, packet))

    def give(self) -> float | None:
        """Give on what is due; return the seconds until the next is, None where nothing is under way."""
        while self._under_way:
            left = self._under_way[0][0] - time.monotonic()
            if left > 0:
                return left
            with suppress(OSError):  # that end is not up yet
                os.write(self.destination, self._under_way.popleft()[1])
        return None


def main() -> int:
    """Forward until standard input ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("devices", nargs=2)
    parser.add_argument("--late-ms", type=float, default=0, help="in each direction")
    parser.add_argument("--loss", type=float, default=0, help="the part of packets that is lost, 0 to 1")
    options = parser.parse_args()
    first_device, second_device = (_device(name) for name in options.devices)
    late = options.late_ms / 1000
    print("there", flush=True)
    _forward(
        [
            Lane(first_device, second_device, late, options.loss),
            Lane(second_device, first_device, late, options.loss),
        ]
    )
    return 0


def _forward(lanes: Sequence[Lane]) -> None:
    sources, end = [lane.source for lane in lanes], sys.stdin.fileno()
    while True:
        waits = [left for lane in lanes if (left := lane.give()) is not None]
        ready, _, _ = select.select([*sources, end], (), (), min(waits, default=None))
        if end in ready:
            return
        for lane in lanes:
            if lane.source in ready:
                lane.take()


def _device(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


if __name__ == "__main__":
    sys.exit(main())

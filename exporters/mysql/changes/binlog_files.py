"""The files of a binary log, and positions in it as whole numbers.

A position is the number of a file, shifted by 40 bits, and an offset in that file. So positions grow with the log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pymysql
from msgspec import Struct

from exporters.mysql.connection import Connection

_OFFSET_BITS = 40
_LARGEST_START = 2**32 - 1
"""A server is asked for offsets of four bytes. After a larger one there is never more than the end of the file."""
FIRST_OFFSET = 4
"""Before it each file has a mark."""
_POSITIONS = ("SHOW BINARY LOG STATUS", "SHOW MASTER STATUS", "SHOW BINLOG STATUS")
_NUMBER = re.compile(r"\.(\d+)$")


def number_of(file: str) -> int:
    """Return the number of a file ``binlog.000012``."""
    match = _NUMBER.search(file)
    return int(match[1]) if match else 0


def make_position(number: int, offset: int) -> int:
    """Return a position by the number of its file and the offset in it."""
    return (number << _OFFSET_BITS) + offset


def split_position(position: int) -> tuple[int, int]:
    """Return the number of the file, and the offset."""
    return position >> _OFFSET_BITS, position & (2**_OFFSET_BITS - 1)


def start_of(position: int) -> tuple[int, int]:
    """Return file and offset from which a server is asked to go on after a position."""
    number, offset = split_position(position)
    return (number + 1, FIRST_OFFSET) if offset > _LARGEST_START else (number, max(offset, FIRST_OFFSET))


class BinlogFiles(Struct, frozen=True):
    """What a server has of its binary log: ``end`` is where that ends, ``sizes`` are those of its files by number."""

    stem: str
    end: int
    sizes: Mapping[int, int]

    def name(self, number: int) -> str:
        """Return the name of a file."""
        return f"{self.stem or 'binlog'}.{number:06d}"

    def show(self, position: int) -> str:
        """Return a position for people: ``binlog.000012:4711``."""
        number, offset = split_position(position)
        return f"{self.name(number)}:{offset}"

    def oldest(self) -> int:
        """Return the first position that the server still has."""
        return make_position(min(self.sizes, default=0), FIRST_OFFSET)

    def missing(self, after: int) -> str:
        """Return why what comes after a position can no longer be read, "" where it can."""
        number, offset = start_of(after)
        if number < min(self.sizes, default=0):
            return f"the server has purged its binary log: the first it has is {self.show(self.oldest())}"
        if after > self.end or offset > self.sizes.get(number, self.end):
            end = self.show(self.end)
            return f"the server's binary log ends at {end}: it was reset, or put back to an earlier state"
        return ""


def distance_bytes(sizes: Mapping[int, int], after: int, end: int) -> int:
    """Return how many bytes of the log lie between two positions, as far as the sizes of the files are known."""
    (first, begin), (last, stop) = split_position(after), split_position(end)
    if end <= after:
        return 0
    if first == last:
        return stop - begin
    between = sum(size for number, size in sizes.items() if first < number < last)
    return max(sizes.get(first, begin) - begin, 0) + between + stop


def read_status(connection: Connection) -> Mapping[str, Any] | None:
    """Return what the server says of the end of its binary log; None where there is none, or one may not ask."""
    for statement in _POSITIONS:
        try:
            rows = connection.named(statement)
        except pymysql.Error:
            continue
        return rows[0] if rows else None
    return None


def read_files(connection: Connection) -> BinlogFiles:
    """Ask for the files. Raises the driver's errors."""
    rows = connection.named("SHOW BINARY LOGS")
    sizes = {number_of(str(row["log_name"])): int(row["file_size"]) for row in rows}
    status = read_status(connection) or {"file": rows[-1]["log_name"], "position": rows[-1]["file_size"]}
    file, offset = str(status["file"]), int(status["position"])
    stem = file.rpartition(".")[0]
    number = number_of(file)
    return BinlogFiles(
        stem, make_position(number, offset), {**sizes, number: max(offset, sizes.get(number, 0))}
    )

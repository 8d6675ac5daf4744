"""With how much memory, and by how many processes of the server, B-trees of large tables are made.

A B-tree is made by sorting. One process that sorts pieces as large as the cache of a processor, and merges them in one
pass, needs three quarters of the processor time of several that share an index, however much memory those have. So an
index is shared only where processors are idle otherwise.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from msgspec import Struct
from msgspec.structs import replace

from migrate.restore.postgres.definitions.post_data_order import PostDataStep

_TAPE_KB = 272
"""The server holds so much of each sorted piece in memory while it merges them (TAPE_BUFFER_OVERHEAD and
MERGE_BUFFER_SIZE, src/backend/utils/sort/tuplesort.c).
"""
_LEAST_KB = 8 * 1024
_SORTED_OF_TEXT = 2
"""What is sorted of a table, as a rule no larger than its text so many times."""
_ALONE = 1 / 3
"""One process alone does as much as so much more of a processor, where several share an index."""
_B_TREE = re.compile(
    rb"^(?:CREATE (?:UNIQUE )?INDEX [^\n]+ USING btree |    ADD CONSTRAINT [^\n]+ (?:PRIMARY KEY|UNIQUE) )",
    re.MULTILINE,
)
_KINDS = frozenset({"CONSTRAINT", "INDEX"})
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


class BuildLimits(Struct, frozen=True):
    """What a server lets an index have: processes in addition to the session's own, None where it has no such setting,
    and memory of all together. ``processors``: of its machine, None where it does not say. ``file_limit``: temporary
    files may not be larger than it likes.
    """

    workers: int | None
    memory_kb: int
    file_limit: bool
    processors: int | None


class Build(Struct, frozen=True):
    """An index that is being made: of a table with so much text, begun ``seconds`` ago."""

    size_bytes: int
    seconds: float


class IndexBuilds:
    """The B-trees of large tables that a run with so many ``workers`` makes, several at once, by ``sessions`` at most:
    as many as workers, and where each processor has one, another for the last index. So no processor is idle at the
    end, and no index has to be shared for that.
    """

    def __init__(self, workers: int, limits: BuildLimits) -> None:
        self.sessions = workers + (1 < workers == limits.processors)
        self._limits = limits
        self._begun: dict[int, tuple[int, float]] = {}
        """When which of them was begun, and of how much text, by the number of the entry."""
        self._speed = 0.0

    def begin(self, step: PostDataStep, behind_bytes: int) -> PostDataStep:
        """Return a step with the settings under which it is made. ``behind_bytes``: the text of those that wait."""
        now = time.monotonic()
        running = [Build(size_bytes, now - begun) for size_bytes, begun in self._begun.values()]
        sql = settings(
            step.size_bytes,
            behind_bytes,
            running,
            sessions=self.sessions,
            speed=self._speed,
            limits=self._limits,
        )
        self._begun[step.entry.number] = step.size_bytes, now
        key = step.key and replace(step.key, create_index=sql + step.key.create_index)
        return replace(step, entry=replace(step.entry, sql=sql + step.entry.sql), key=key)

    def end(self, step: PostDataStep) -> None:
        """Note that a step is made, or cannot be made."""
        size_bytes, begun = self._begun.pop(step.entry.number, (0, 0.0))
        if size_bytes:
            self._speed = size_bytes / max(time.monotonic() - begun, 1e-6)


def settings(
    size_bytes: int,
    behind_bytes: int,
    running: Sequence[Build],
    *,
    sessions: int,
    speed: float,
    limits: BuildLimits,
) -> bytes:
    """Return the settings under which the B-tree of a table with so much text is made, for its transaction. Others wait
    behind it, of tables with ``behind_bytes`` in all, and others are ``running``. ``speed`` of earlier ones, bytes of
    text a second; 0 where there was none.
    """
    if limits.processors is None or limits.workers is None:
        return b""
    left_bytes = sum(max(0.0, build.size_bytes - build.seconds * speed) for build in running)
    at_once = 1 + min(sessions - 1, (behind_bytes + left_bytes) / max(1, size_bytes))
    workers = min(limits.workers, workers_of_each(limits.processors, at_once))
    statements = [f"SET LOCAL max_parallel_maintenance_workers = {workers};\n"]
    if not workers and not limits.file_limit:
        memory_kb = min(limits.memory_kb, sort_memory_kb(size_bytes))
        statements.append(f"SET LOCAL maintenance_work_mem = {memory_kb};\n")
    return "".join(statements).encode()


def workers_of_each(processors: int, builds: float) -> int:
    """Return how many processes each index has in addition to its session's, while so many are made at once, on the
    average: so many that no processor is idle, and none where there is no more than ``_ALONE`` left for each.
    """
    return max(0, math.ceil(round(processors / builds - _ALONE, 6)) - 1)


def sort_memory_kb(size_bytes: int) -> int:
    """Return how much memory lets one process merge all sorted pieces at once, and not much more: n times as much is
    for n times as many pieces, each n times as large.
    """
    return max(_LEAST_KB, math.isqrt(_SORTED_OF_TEXT * size_bytes * _TAPE_KB // 1024))


def count_processors(online: str) -> int | None:
    """Return how many processors Linux names in a list such as ``0-3,6``; None where it is no such list."""
    ranges = [_RANGE.fullmatch(word) for word in online.strip().split(",")]
    if not all(ranges):
        return None
    ends = [(int(match[1]), int(match[2] or match[1])) for match in ranges if match]
    return sum(last - first + 1 for first, last in ends)


def makes_large_b_tree(step: PostDataStep) -> bool:
    """Tell whether a step makes the B-tree of a table that is not small. Other indexes may need all memory there is."""
    return step.entry.kind in _KINDS and not step.is_light and _B_TREE.search(step.entry.sql) is not None


_LIMITS = """
SELECT pg_catalog.current_setting('max_parallel_maintenance_workers', true)::int,
  (pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) / 1024)::int,
  pg_catalog.current_setting('temp_file_limit') <> '-1', pg_catalog.current_setting('is_superuser') = 'on'
"""
_ONLINE = "SELECT pg_catalog.pg_read_file('/sys/devices/system/cpu/online', 0, 1000, true)"
"""Linux lists the processors there. Only superusers may read it, as a rule."""


def read_limits(connection: psycopg.Connection[Any]) -> BuildLimits:
    """Ask a session that makes indexes. Raises the driver's errors."""
    row = connection.execute(_LIMITS.encode()).fetchone()
    assert row is not None
    workers, memory_kb, file_limit, is_superuser = row
    return BuildLimits(workers, memory_kb, file_limit, _processors(connection) if is_superuser else None)


def _processors(connection: psycopg.Connection[Any]) -> int | None:
    try:
        row = connection.execute(_ONLINE.encode()).fetchone()
    except psycopg.Error:
        if connection.broken:
            raise
        return None
    return count_processors(row[0]) if row and row[0] else None

"""Post-data into the destination: one transaction an entry, or several light ones, with the note that they are done."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import psycopg

from exporters.postgres.sessions.connection import PostgresAddress
from migrate.restore.postgres import restore_state
from migrate.restore.postgres.definitions.index_builds import IndexBuilds, makes_large_b_tree, read_limits
from migrate.restore.postgres.definitions.post_data_order import KeyByIndex, LockedTables, PostDataStep, Stage
from migrate.restore.postgres.definitions.refusals import Workaround, ddl_error, first_line, is_refusal
from migrate.restore.postgres.destination import connect_writer
from migrate.restore.postgres.restore_state import mark_done
from migrate.runtime.crash_points import durable

OF_ROWS = frozenset({"MATERIALIZED VIEW DATA"})
"""Entries of post-data that fill something."""
MEMORY_KB = 256 * 1024
"""A session that makes indexes may sort at least so much in memory."""
_SORT_MEMORY = """
SELECT set_config('maintenance_work_mem', asked.kb || 'kB', false) FROM (
  SELECT greatest(%(least)s, least(%(most)s,
    pg_size_bytes(current_setting('shared_buffers')) / 1024 / 2 / %(sessions)s)) AS kb
) AS asked WHERE pg_size_bytes(current_setting('maintenance_work_mem')) / 1024 < asked.kb
"""
"""All sessions together half of the server's buffers, which are a quarter of the memory of a server that is set up for
it. Every role may set this, and what the server allows by itself is not made less.
"""
_MOST_MEMORY_KB = 2 * 2**20 - 1
"""In one session. More than 2 GB a server on Windows does not take (PostgreSQL documentation, 20.4)."""
TOGETHER = 32
"""How many light entries are made in one transaction at most."""
_FEWEST_TOGETHER = 4
"""Fewer are not worth a transaction of their own where others wait behind them."""
_MARK = "post-data/"
_IN_EACH_OTHERS_WAY = (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable)


class StepRunner:
    """Makes entries in the destination that are not ``done``. ``head``: the settings under which the script is run. An
    entry that the server refuses is tried again by ``finish``. What it refuses even then is named in ``left_out``, and
    not marked as done: a later run tries it again.
    """

    def __init__(
        self,
        address: PostgresAddress,
        head: bytes,
        done: AbstractSet[str],
        *,
        workers: int,
        advance: Callable[[], None],
    ) -> None:
        self._address = address
        self._head = head
        self._done = done
        self._workers = max(1, workers)
        self._advance = advance
        self._refused: list[tuple[PostDataStep, psycopg.Error]] = []
        self._idle: list[psycopg.Connection[Any]] = []
        self._busy: set[psycopg.Connection[Any]] = set()
        self._stop = threading.Event()
        self._builds: IndexBuilds | None = None
        self._indexed: set[int] = set()
        """The keys, by number of their entries, whose indexes are there."""
        self.left_out: list[str] = []
        self.rows_missing = False
        """Some rows are still to come, in a later run. What depends on them is made, and not marked as done."""

    def make(self, stages: Sequence[Stage]) -> None:
        """Make what is not done yet. After the first error but a refusal the others stop soon, and it is raised."""
        with ThreadPoolExecutor(self._workers + 1, thread_name_prefix="moveout-ddl") as pool:
            for stage in stages:
                todo = [step for step in stage.steps if mark_of(step) not in self._done]
                made = (step for step in stage.steps if step.makes_index and mark_of(step) in self._done)
                self._indexed.update(step.entry.number for step in made)
                if stage.parallel:
                    self._at_once(pool, todo)
                else:
                    while todo:
                        self._make_each(_taken(todo, (), TOGETHER))

    def finish(self) -> None:
        """Try what was refused as long as something of it succeeds, with a workaround only if nothing does without."""
        while self._refused and any(self._retry(workaround) for workaround in Workaround):
            pass
        if not self.rows_missing:
            self._for_new_rows()
        self.left_out += [f"{step.entry.label}: {first_line(error)}" for step, error in self._refused]

    def close(self) -> None:
        """Close the connections that are not at work."""
        while self._idle:
            self._idle.pop().close()

    def _for_new_rows(self) -> None:
        """Make foreign keys that rows violate, as they do at the source, for new rows only."""
        refused, self._refused = self._refused, []
        for step, error in refused:
            late = step.for_new_rows() if isinstance(error, psycopg.errors.ForeignKeyViolation) else None
            known = len(self._refused)
            if late is not None:
                note = f"{step.entry.label} for rows that are there: {first_line(error)}"
                self._make(late, left_out=[note])
            if late is None or len(self._refused) > known:
                self._refused[known:] = [(step, error)]

    def _retry(self, workaround: Workaround) -> bool:
        waiting, self._refused = self._refused, []
        for number, (step, _) in enumerate(waiting):
            self._make(step, workaround)
            if workaround is not Workaround.NONE and len(self._refused) == number:
                self._refused += waiting[number + 1 :]
                break
        return len(self._refused) < len(waiting)

    def _at_once(self, pool: ThreadPoolExecutor, todo: Sequence[PostDataStep]) -> None:
        """Make steps in parallel, those that lock the same table one after the other."""
        waiting = list(todo)
        running: dict[Future[bool], list[PostDataStep]] = {}
        again: list[PostDataStep] = []
        try:
            while waiting or running:
                while self._has_room(len(running), waiting):
                    under_way = [step for some in running.values() for step in some]
                    steps = _taken(waiting, under_way, self._share_of(len(waiting)))
                    if not steps:
                        break
                    if makes_large_b_tree(steps[0]):
                        behind_bytes = sum(step.size_bytes for step in waiting if not step.is_light)
                        steps = [self._index_builds().begin(steps[0], behind_bytes)]
                    running[pool.submit(self._try, steps)] = steps
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    steps = running.pop(future)
                    if self._builds is not None:
                        self._builds.end(steps[0])
                    if not future.result():
                        again += steps
        except BaseException:
            self._cancel()
            raise
        finally:
            self._stop.set()
            wait(running)
            self._stop.clear()
        for step in again:
            self._make_each([step])

    def _index_builds(self) -> IndexBuilds:
        if self._builds is None:
            with self._lent() as connection:
                self._builds = IndexBuilds(self._workers, read_limits(connection))
        return self._builds

    def _has_room(self, running: int, waiting: Sequence[PostDataStep]) -> bool:
        """Tell whether another step may begin. The last large one need not wait for a worker."""
        if running < self._workers:
            return True
        has_session = self._builds is not None and running < self._builds.sessions
        return has_session and sum(not step.is_light for step in waiting) == 1

    def _share_of(self, left: int) -> int:
        """Return how many light steps a worker takes at most, fewer and fewer, so that all workers end together."""
        if self._workers == 1:
            return TOGETHER
        return min(TOGETHER, max(_FEWEST_TOGETHER, left // (2 * self._workers)))

    def _try(self, steps: Sequence[PostDataStep]) -> bool:
        """Make steps; False where others were in their way, so that they have to be made alone."""
        if self._stop.is_set():
            return True
        try:
            self._make_each(steps)
        except _IN_EACH_OTHERS_WAY:
            return False
        return True

    def _make_each(self, steps: Sequence[PostDataStep]) -> None:
        """Make entries in one transaction; if the server refuses anything of it, each in one of its own."""
        if len(steps) > 1 and self._make_together(steps):
            return
        for step in steps:
            if step.key is None:
                self._make(step)
            elif step.makes_index:
                self._make_index(step, step.key)
            else:
                self._make_key(step, step.key)

    def _make_index(self, step: PostDataStep, key: KeyByIndex) -> None:
        """Make the index of a key. Where the server refuses it, the key says so."""
        if self._accepts(step, key.create_index, mark_of(step)):
            self._indexed.add(step.entry.number)
        self._advance()

    def _make_key(self, step: PostDataStep, key: KeyByIndex) -> None:
        """Make a key of its index. If the server refuses that, the index goes, and the key is made as at the source."""
        if step.entry.number in self._indexed:
            self._indexed.discard(step.entry.number)
            if self._accepts(step, key.take_index, mark_of(step)):
                self._advance()
                return
            self._accepts(step, key.drop_index)
        self._make(step)

    def _accepts(self, step: PostDataStep, sql: bytes, *marks: str) -> bool:
        """Execute a statement for a step, in a transaction with these marks; tell whether the server accepts it."""
        with self._lent() as connection:
            try:
                with durable("restore.postgres.key_by_index"), connection.transaction():
                    mark_done(connection, *marks)
                    connection.execute(sql)
            except _IN_EACH_OTHERS_WAY:
                raise
            except psycopg.Error as exc:
                if not (isinstance(exc, psycopg.errors.InsufficientPrivilege) or is_refusal(exc, connection)):
                    raise ddl_error(exc, step.entry.label) from exc
                return False
        return True

    def _make_together(self, steps: Sequence[PostDataStep]) -> bool:
        """Make entries in one transaction; tell whether that succeeded. If not, nothing of it is there."""
        with self._lent() as connection:
            try:
                with durable("restore.postgres.post_data_together"), connection.transaction():
                    mark_done(connection, *(mark_of(step) for step in steps))
                    connection.execute(b"\n".join(step.entry.sql for step in steps))
            except _IN_EACH_OTHERS_WAY:
                raise
            except psycopg.Error:
                if connection.broken:
                    raise
                return False
        for _ in steps:
            self._advance()
        return True

    def _make(
        self, step: PostDataStep, workaround: Workaround = Workaround.NONE, left_out: Sequence[str] = ()
    ) -> None:
        """Make an entry, marked as done together with what is ``left_out`` of it."""
        entry = step.entry
        with self._lent() as connection:
            notes = [f"{entry.label} needs {workaround.need(connection)}"] if workaround.value else []
            try:
                with durable("restore.postgres.post_data"), connection.transaction():
                    if not (self.rows_missing and entry.kind in OF_ROWS):
                        mark_done(connection, mark_of(step))
                    with workaround.given(connection, entry):
                        connection.execute(entry.sql)
                    restore_state.add_left_out(connection, mark_of(step), left_out, notes)
            except _IN_EACH_OTHERS_WAY:
                raise
            except psycopg.Error as exc:
                if not (isinstance(exc, psycopg.errors.InsufficientPrivilege) or is_refusal(exc, connection)):
                    raise ddl_error(exc, entry.label) from exc
                self._refused.append((step, exc))
                return
        self._advance()

    @contextlib.contextmanager
    def _lent(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection, which is closed after an error that is not another one's lock."""
        connection = self._idle.pop() if self._idle else self._connect()
        self._busy.add(connection)
        try:
            yield connection
        except _IN_EACH_OTHERS_WAY:
            self._idle.append(connection)
            raise
        except BaseException:
            connection.close()
            raise
        else:
            self._idle.append(connection)
        finally:
            self._busy.discard(connection)

    def _cancel(self) -> None:
        """End what the other workers do: a large index may have hours to go."""
        for connection in list(self._busy):
            with contextlib.suppress(psycopg.Error):
                connection.cancel()

    def _connect(self) -> psycopg.Connection[Any]:
        connection = connect_writer(self._address)
        try:
            connection.execute(self._head)
            memory = {"least": MEMORY_KB, "most": _MOST_MEMORY_KB, "sessions": self._workers}
            connection.execute(_SORT_MEMORY.encode(), memory)
        except psycopg.ProgrammingError as exc:
            connection.close()
            raise ddl_error(exc, "post-data.sql") from exc
        except BaseException:
            connection.close()
            raise
        return connection


def _taken(waiting: list[PostDataStep], running: Sequence[PostDataStep], most: int) -> list[PostDataStep]:
    """Take the first step that can be made now, and light steps behind a light step, ``most`` in all."""
    locked = LockedTables.of(running)
    begin = next((number for number, step in enumerate(waiting) if step.fits(locked)), len(waiting))
    end = begin + 1
    if begin < len(waiting) and waiting[begin].is_light:
        while end < min(begin + most, len(waiting)) and waiting[end].is_light and waiting[end].fits(locked):
            end += 1
    steps = waiting[begin:end]
    del waiting[begin:end]
    return steps


def mark_of(step: PostDataStep) -> str:
    """Return by what name the destination remembers that an entry, or the index of a key, is made."""
    return f"{_MARK}{step.entry.number:06d}{'-index' if step.makes_index else ''}"


def is_mark(name: str) -> bool:
    """Tell whether what the destination remembers under a name is an entry of post-data."""
    return name.startswith(_MARK)

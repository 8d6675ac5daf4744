"""The cutover: hold the source, apply all that it has written, and compare both sides.

No state is kept on the way. The source, the segments and the destination show what was done. So the same command
continues a cutover that died anywhere, or it can be taken back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import TypeVar

from msgspec import Struct, field

from exporters.changes import Message
from exporters.engine import TableName
from exporters.errors import (
    SourceError,
    SourceGoneError,
    SourceNoRouteError,
    SourceSilentError,
    SourceUnreachableError,
)
from migrate.changes.apply import UNREADABLE, Applying, Mark
from migrate.changes.capture import Capture, resume_position
from migrate.changes.remainder import carry_remainder
from migrate.changes.segments import SegmentReader
from migrate.errors import (
    AlreadyExistsError,
    BusyError,
    MoveoutError,
)
from migrate.follow.cutover_record import ProvenSource, Stage
from migrate.follow.early_comparison import (
    EarlyComparison,
    Touched,
    digests_with_keys,
    keyed_rows,
)
from migrate.follow.followed import FollowedSource, require_base
from migrate.follow.table_digests import (
    Digests,
    ReadTables,
    as_recorded,
    differences,
    live_tables,
    read_digests,
    read_states,
    table_label,
    uncounted_sessions,
)
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress, Silent
from migrate.storage.api import Store

_CONTENTION_SECONDS, _AGAIN_SECONDS = 10.0, 0.5
_FAILING_SECONDS = 60.0
"""A step that fails is retried for so long, however long each attempt takes."""
_CAPTURE_SECONDS = 5.0
"""The time between two captures while both sides are compared before the hold."""
_COUNTED_SECONDS, _COUNTED_POLL_SECONDS = 1.0, 0.1
"""How long a server may take to count the writes of a session that has ended, and how often it is asked."""
COUNTED_AFTER_SECONDS = 17.0
"""How long a cutover waits, before the hold, for the writes of other sessions at the destination to be counted. Tables
that the remaining sessions may have written to are read whole.
"""
Result = TypeVar("Result")


class Cutover(Struct):
    """The cutover of one source. ``report`` is called with each stage that begins. ``progress`` shows the comparison
    before the hold.
    """

    followed: FollowedSource
    store: Store
    cancellation: CancellationToken
    workers: int
    report: Callable[[str], None] = lambda _: None
    progress: Progress = field(default_factory=Silent)
    _early: EarlyComparison | None = None
    _is_unknown: bool = False
    """Whether the comparison before the hold has to be made again."""
    _capture_to: Callable[..., None] | None = None
    _open_stream: ExitStack = field(default_factory=ExitStack)

    def catch_up(self) -> Mark:
        """Capture and apply what the source has written until now. After a comparison before the hold, also compare the
        rows that this has touched. Return the destination's mark. Raises errors of both servers and of the location.
        """
        if self._is_unknown:
            self.compare_early()
        try:
            return self._drain(Stages(lambda _: None), is_held=False)[0]
        except SourceUnreachableError:
            self._is_unknown = self._early is not None  # changes may be applied whose rows were not compared
            raise

    def compare_early(self) -> None:
        """Compare both sides while the source is in use. Where tables are equal, only rows that the log names later
        are read again. Changes are captured meanwhile, but not applied. Raises errors of both servers and of
        the location.
        """
        self.report("compare before the hold")
        self._early = None
        self._is_unknown = True
        source, destination = self.followed.source, self.followed.destination
        counted_by = time.monotonic() + COUNTED_AFTER_SECONDS
        while (sessions := self.recent_sessions()) and time.monotonic() < counted_by:
            self.report(f"waiting until {sessions[0]} has been idle at the destination for a while")
            self.cancellation.wait(_COUNTED_SECONDS)
            self.cancellation.check()
        mark, _ = self._retried(self._capture_and_apply)
        self.cancellation.wait(_COUNTED_SECONDS)
        early = EarlyComparison(mark, read_states(source, destination, is_settled=True))
        with (
            keyed_rows(source, is_one_moment=True) as source_rows,
            keyed_rows(destination, is_one_moment=True) as destination_rows,
        ):
            self.progress.grow(items=sum(source_rows.tables().values()) * 2)
            digests = self._read_and_capture(source_rows.digests, destination_rows.digests)
            self._retried(self._capture)  # all that the source's snapshot has
            touched = self._touched_since(mark)
            early.begin(source_rows, destination_rows, digests, touched, self.cancellation.check)
        self._early, self._is_unknown = early, False

    def recent_sessions(self) -> Sequence[str]:
        """Return the sessions of others that may have written to the destination what its server has not counted."""
        return uncounted_sessions(self.followed.destination)

    def prove(self) -> ProvenSource:
        """Bring over all that the held source has, and compare. Raises ``BusyError`` where the source was written
        to meanwhile, and errors of both servers and of the location.
        """
        followed, stages = self.followed, Stages(self.report)
        mark, end = self._drain(stages, is_held=True)
        with stages.timed(Stage.ASK_WRITTEN):
            early, read_whole = self._still_equal(mark)
        with stages.timed(Stage.CARRY_UNLOGGED):
            carried = carry_remainder(
                followed.source,
                followed.destination,
                log=followed.log,
                workers=self.workers,
                skipped=mark.skipped,
            )
        with stages.timed(Stage.COMPARE_WHOLE_TABLES):
            source_digests, destination_digests, findings = read_digests(
                live_tables(followed.source),
                live_tables(followed.destination),
                workers=self.workers,
                without=early.keys(),
                cancellation=self.cancellation,
            )
        with stages.timed(Stage.DRAIN):
            self._retried(self._capture)
            if self._retried(self._apply).place != mark.place:
                raise written_meanwhile(followed.name)
        only_at_source = source_digests.keys() - destination_digests.keys()
        missing = [name for name in only_at_source if table_label(name) in mark.skipped]
        compared = {name: digest for name, digest in source_digests.items() if name not in missing}
        touched = self._early.touched if self._early else {}
        return ProvenSource(
            name=followed.name,
            end=end,
            carried=carried,
            differences=[*findings, *differences(compared, destination_digests)],
            tables=as_recorded({**compared, **early}),
            seconds=stages.seconds,
            missing=sorted(map(table_label, missing)),
            compared_early=sorted(map(table_label, early)),
            compared_by_key={
                table_label(name): touched[name] for name in sorted(touched.keys() & early.keys())
            },
            read_whole={table_label(name): reason for name, reason in sorted(read_whole.items())},
        )

    def close(self) -> None:
        """Stop reading the log."""
        self._capture_to = None
        self._open_stream.close()

    def _still_equal(self, mark: Mark) -> tuple[Digests, Mapping[TableName, str]]:
        """Return the tables that were equal before the hold and are equal now, and why others are to be read whole."""
        early, followed = self._early, self.followed
        if early is None:
            return {}, {}
        logged = followed.open_log().logged_tables(followed.log)
        sessions = self.recent_sessions()
        for name in [*early.digests]:
            if name not in logged or table_label(name) in mark.skipped:
                early.drop(name, "not all of its changes are in the log")
            elif sessions:
                early.drop(name, f"{sessions[0]} is connected to the destination, and may have written to it")
        deadline = time.monotonic() + _COUNTED_SECONDS
        while not early.are_counted(states := read_states(followed.source, followed.destination)):
            if time.monotonic() > deadline:
                break
            self.cancellation.wait(_COUNTED_POLL_SECONDS)
        return early.still_equal(states), early.dropped

    def _read_and_capture(self, source: ReadTables, destination: ReadTables) -> tuple[Digests, Digests]:
        """Return the digests of both sides; meanwhile capture, so that the source keeps little of its log."""
        reading_token = self.cancellation.child()

        def advance(rows: int, size_bytes: int) -> None:
            reading_token.check()
            self.progress.advance(items=rows, size_bytes=size_bytes)

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read_digests, source, destination, workers=self.workers, advance=advance)
            try:
                while not wait([reading], timeout=_CAPTURE_SECONDS).done:
                    self._retried(self._capture)
            except BaseException:
                reading_token.cancel()
                raise
        source_digests, destination_digests, _ = reading.result()
        return source_digests, destination_digests

    def _drain(self, stages: Stages, *, is_held: bool) -> tuple[Mark, str]:
        """Capture and apply up to where the source's log ends now; return the mark, and that position as text. Where
        both sides were compared before, compare the rows that these changes have touched. ``is_held``: nothing is
        written at the source meanwhile.
        """
        early, destination = self._early, self.followed.destination
        if early is None:
            with stages.timed(Stage.DRAIN):
                return self._retried(self._capture_and_apply)
        check = self.cancellation.check
        with stages.timed(Stage.DRAIN):
            end = self._retried(self._capture)
            touched = early.comparable(self._touched_since(early.mark), is_held=is_held)
            before: Digests = {}
            if touched:
                with keyed_rows(destination) as rows:
                    touched = early.with_exact_keys(touched, rows)
                    before = digests_with_keys(rows, touched, check)
            mark = self._retried(partial(self._apply, touched))
        with stages.timed(Stage.COMPARE_TOUCHED):
            if touched:
                with keyed_rows(self.followed.source) as source_rows, keyed_rows(destination) as rows:
                    later: Touched = {}
                    if not is_held:
                        self._retried(self._capture)
                        later = self._touched_since(mark)
                    early.take_round(source_rows, rows, touched, later, before, check)
        early.mark = mark
        return mark, end

    def _touched_since(self, mark: Mark) -> Touched:
        """Return the rows that the captured changes after a mark have touched."""
        folder, segment = self.followed.folder(self.store), 0

        def messages() -> Iterator[Message]:
            nonlocal segment
            for stored in SegmentReader(folder, mark.place).read():
                segment = stored.place.segment
                yield stored.message

        try:
            return self.followed.open_log().touched_rows(self.followed.log, messages())
        except UNREADABLE as exc:
            raise folder.unreadable(segment, exc) from exc

    def _retried(self, step: Callable[[], Result]) -> Result:
        """Do a step; see ``retried``. Also retry where a follow that has just begun is in the way. Raises ``Cancelled``
        after the step where the run was cancelled meanwhile: the step may have done only half.
        """
        errors = BusyError, AlreadyExistsError, SourceGoneError, SourceUnreachableError
        result = retried(step, self.cancellation, errors)
        self.cancellation.check()
        return result

    def _capture_and_apply(self) -> tuple[Mark, str]:
        end = self._capture()
        return self._apply(), end

    def _apply(self, touched: Collection[TableName] = ()) -> Mark:
        """Apply what is captured; return the mark. ``touched``: the tables of which it is known which rows change."""
        folder = self.followed.folder(self.store)
        last = folder.last()
        with closing(self.followed.open_writer()) as writer:
            if (before := writer.mark()) is not None:
                require_base(self.followed, before)
            try:
                mark = Applying(folder, writer).run(
                    self.cancellation, until=lambda at: last is None or at.place >= last.boundary
                )
            finally:
                if self._early is not None:
                    of_server = 0
                    with suppress(SourceError):  # else the server's count shows that it is not known
                        of_server = writer.written_of_server()
                    self._early.add_written(writer.written, of_server, touched)
        return mark

    def _capture(self) -> str:
        """Capture up to where the source's log ends now; return that position as text. The stream stays open: one that
        is opened anew makes PostgreSQL decode the last seconds of its log again.
        """
        followed = self.followed
        folder = followed.folder(self.store)
        folder.require_begun()
        log = followed.open_log()
        end = log.end(followed.log)
        try:
            if self._capture_to is None:
                after = resume_position(folder, followed.base)
                stream = self._open_stream.enter_context(log.stream(followed.log, after, folder))
                self._capture_to = partial(Capture(folder).run, stream, self.cancellation)
            self._capture_to(end=end)
        except BaseException:
            self.close()
            raise
        return log.show(end)


def retried(
    step: Callable[[], Result],
    cancellation: CancellationToken,
    errors: tuple[type[MoveoutError], ...] = (SourceUnreachableError,),
) -> Result:
    """Do a step; where it fails by one of some errors, do it again for a while."""
    waited, failing_until = 0.0, math.inf
    while True:
        try:
            return step()
        except errors as exc:
            if isinstance(exc, SourceSilentError) and not isinstance(exc, SourceNoRouteError):
                raise  # it has been waited for
            now = time.monotonic()
            failing_until = min(failing_until, now + _FAILING_SECONDS)
            if waited >= _CONTENTION_SECONDS or now >= failing_until:
                raise
        cancellation.wait(_AGAIN_SECONDS)
        cancellation.check()
        waited += _AGAIN_SECONDS


class Stages(Struct):
    """How many seconds each stage of a cutover took. ``report`` is called with each stage that begins."""

    report: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Report a stage, and add its time to what was measured of it."""
        name = stage.value
        self.report(name)
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun


def written_meanwhile(source: str) -> BusyError:
    """Return the error for a source that was written to during the comparison."""
    return BusyError(
        f"{source} was written to while it was compared",
        next_step="stop what writes there, and run the same command again. --hold does not bind an account that may do"
        " everything (SUPER, READ_ONLY ADMIN), nor a session that sets itself to read write",
    )

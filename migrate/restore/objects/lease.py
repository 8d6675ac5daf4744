"""The lease of a restore, in the destination bucket itself: two runs that fill one bucket see each other, wherever
they are started and whatever else they keep elsewhere.

It is in a folder that no object of a bundle uses. The folder and all its versions are removed when the objects are
written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from msgspec import Struct
from msgspec.structs import replace

from exporters.bucket_api import ObjectSummary
from migrate.bundle.lease import Lease
from migrate.errors import BusyError, MoveoutError, UnreachableError
from migrate.runtime.progress import Progress
from migrate.storage.registry import open_location
from migrate.storage.s3.destination_bucket import DestinationBucket
from migrate.storage.s3.own_objects import RESTORES

_AT_ONCE = 8


class RestoreFolder(Struct, frozen=True):
    """The folder that restores keep in a destination bucket while they are under way. It has their lease."""

    destination: DestinationBucket

    @property
    def prefix(self) -> str:
        """What its keys begin with."""
        return self.destination.prefix + RESTORES

    @property
    def url(self) -> str:
        """Its location."""
        return replace(self.destination.reader.s3_location, prefix=self.prefix).url

    @property
    def would_stay(self) -> bool:
        """Whether the bucket locks whatever is written to it. A lease could not be removed then."""
        return bool((self.destination.object_lock() or {}).get("Rule"))

    @contextmanager
    def held(self, progress: Progress, *, alone: bool) -> Iterator[Lease]:
        """Hold the lease. Where the context ends without an error the folder is removed; a note says if it cannot be.
        Raises ``BusyError``.
        """
        secrets = self.destination.reader.s3_location.secrets
        store = open_location(self.url, secrets=secrets, note=progress.note)
        with Lease(store, "restore", progress=progress, alone=alone, bucket=self.destination.url) as lease:
            yield lease
            self._remove(
                summary
                for summary in self.destination.list(prefix=self.prefix)
                if not self._is_lease(summary)
            )
        try:
            kept = list(self._all())
            # What hides the others goes last: a server that is asked for both at once may show an older one again.
            self._remove(summary for summary in kept if not summary.is_latest)
            self._remove(summary for summary in kept if summary.is_latest and summary.is_delete_marker)
            left = "it is still there" if lease.is_there() else ""
        except MoveoutError as exc:
            left = str(exc)
        if left:
            progress.note(f"remove {self.url}, which is of no use any more: this restore could not ({left})")

    def _all(self) -> Iterator[ObjectSummary]:
        try:
            yield from self.destination.list_versions(prefix=self.prefix)
        except MoveoutError:  # a server without support for versions
            yield from self.destination.list(prefix=self.prefix)

    def _is_lease(self, summary: ObjectSummary) -> bool:
        return summary.key.startswith(f"{self.prefix}_work/lease")

    def _remove(self, summaries: Iterable[ObjectSummary]) -> None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="moveout-clear") as executor:
            list(
                executor.map(
                    lambda summary: self.destination.delete(summary.key, summary.version_id), summaries
                )
            )


@contextmanager
def lease_of(destination: DestinationBucket, progress: Progress, *, others: bool) -> Iterator[Lease | None]:
    """Hold the lease of the destination while the context lasts; ``others``: other machines write under it, too. None
    where it could not be removed afterwards, or where the server does not take it: then a note says so, unless
    ``others`` need it. Raises ``BusyError``, ``UnreachableError``.
    """
    folder = RestoreFolder(destination)
    with ExitStack() as stack:
        lease = None
        if folder.would_stay:
            progress.note(
                f"{destination.url} locks all that is written to it, so no lease can lie there: only one machine may"
                " fill it"
            )
        else:
            try:
                lease = stack.enter_context(folder.held(progress, alone=not others))
            except (BusyError, UnreachableError):
                raise
            except MoveoutError as exc:
                if others:
                    raise
                progress.note(f"{destination.url} takes no lease ({exc}): only one machine may fill it")
        yield lease

"""Sources that cannot be read: the export goes on without them, and names them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from msgspec import Struct

from exporters.api import Snapshot, Survey, Workspace
from exporters.errors import SourceError


class LostSource(Struct):
    """A source that could not be opened. Every attempt to read it raises the reason."""

    name: str
    url: str
    error: SourceError

    def survey(self) -> Survey:
        """Raise the reason."""
        raise self.error

    def snapshot(self, workspace: Workspace, *, workers: int) -> AbstractContextManager[Snapshot]:
        """Raise the reason."""
        del workspace, workers
        raise self.error

    def close(self) -> None:
        """Do nothing: nothing is open."""


def no_source_error(failures: Sequence[tuple[str, SourceError]]) -> SourceError:
    """Return the error of an export in which no source could be read. It is of the kind with the highest exit code, and
    names all sources, each with its next step where they differ.
    """
    if len(failures) == 1:
        return failures[0][1]
    worst = max((error for _, error in failures), key=lambda error: error.exit_code)
    same_step = len({error.next_step for _, error in failures}) == 1
    next_step = worst.next_step if same_step else "once these reasons are gone, run the same command again"
    error = type(worst)("no source could be read:", next_step=next_step)
    error.causes = failures
    return error

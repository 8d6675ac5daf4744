"""What a kind of source must offer so that it can be held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from msgspec import Struct

from exporters.errors import SourceError, SourceNotAllowedError
from migrate.bundle.findings import Finding
from migrate.errors import NotAllowedError


class Change(Struct, frozen=True):
    """One setting of a source: how it was, and how the hold has it. Values are plain JSON.

    ``back`` is what an undo leads to: ``before``, except where the server has no way back to that. ``says`` is what
    will be done, in the source's own words (SQL, or a sentence); ``undo_says`` the same of the undo.
    """

    setting: str
    before: Any
    after: Any
    back: Any
    says: str
    undo_says: str


class HoldRequest(Struct, frozen=True):
    """How a source shall be held, where there is a choice. ``try_as``: an AWS profile by which deletion is tried;
    ``whole_server``: a database's server may become read-only with all of its databases; ``settings``: those that an
    undo file names already.
    """

    try_as: str = ""
    whole_server: bool = False
    settings: Sequence[str] = ()


class SourceHold(Protocol):
    """One source, opened to be held. Methods raise errors of ``migrate.errors`` or ``exporters.errors``. Those that are
    written out here are for settings that bind whatever is open.
    """

    url: str
    """Without secrets."""

    def changes(self) -> Sequence[Change]:
        """Return what has to change for the source to be held, in the order in which it has to; nothing where all is in
        force.
        """
        ...

    def refusals(self) -> Iterable[NotAllowedError]:
        """Yield why the changes may not be made, or sessions may not be ended, as far as that shows before."""
        return ()

    def read(self, setting: str) -> Any:
        """Return a setting as the source has it now."""
        ...

    def write(self, setting: str, value: Any) -> None:
        """Set it, as ``read`` returns it."""
        ...

    def same(self, setting: str, value: Any, other: Any) -> bool:
        """Tell whether two values of a setting mean the same: servers write them in other words."""
        del setting
        return bool(value == other)

    def mark(self) -> str:
        """Return a mark that separates what was begun at this source before from what is begun from now on: the
        sessions that there are, its own clock's time, or a number that it counts.
        """
        return datetime.now(UTC).isoformat()

    def open_write_paths(self, since: str | None) -> Sequence[Finding]:
        """Return the ways by which something may still be deleted or written although all settings are in force: asked
        and tried, not assumed. ``since``: the mark of when the settings were complete, None where that is unknown.
        """
        ...

    def close_write_paths(self, since: str) -> int:
        """End what was begun before and is not bound by the settings (sessions of a database); return how many."""
        del since
        return 0

    def limits(self) -> Sequence[str]:
        """Return sentences: what such a hold cannot do, and who stands above it."""
        ...

    def close(self) -> None:
        """Release connections."""
        return


class OpenHold(Protocol):
    """Opens a source to be held."""

    def __call__(self, url: str, secrets: Mapping[str, str], request: HoldRequest) -> SourceHold:
        """Return the source. Raises errors of ``migrate.errors`` or ``exporters.errors``."""
        ...


@contextmanager
def translated(
    errors: tuple[type[BaseException], ...],
    translate: Callable[[BaseException, str], SourceError],
    location: str,
    *,
    needs: str,
) -> Iterator[None]:
    """Raise what the driver raises as the source error that it stands for; ``needs`` says what account a hold needs."""
    try:
        yield
    except errors as exc:
        translated_error = translate(exc, location)
        if isinstance(translated_error, SourceNotAllowedError):
            translated_error.next_step = needs
        raise translated_error from exc

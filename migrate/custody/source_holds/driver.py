"""The seam to a database's driver, for holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from exporters.errors import SourceError, SourceNotAllowedError


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

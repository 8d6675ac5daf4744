"""What to do where the destination of a restore does not exist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from migrate.errors import GoneError


@contextmanager
def naming_create() -> Iterator[None]:
    """Name ``--create`` as the next step of a ``GoneError``."""
    try:
        yield
    except GoneError as exc:
        next_step = "add --create, and moveout makes it as the source was; or check the name in the URL"
        raise type(exc)(exc.explanation, about=exc.about, next_step=next_step) from exc

"""Where the changes of a followed source begin, as a bundle records it (``docs/FORMAT.md``, "Changes after the
snapshot"). Whoever can write to the location may have changed that.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from exporters.engine import load_part
from migrate.bundle import layout
from migrate.engines import registry
from migrate.errors import DamageError


class RecordedChanges(Struct, frozen=True):
    """A base: its position, what the engine needs to read on, and the name after which its objects at the server are
    called.
    """

    position: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    log: dict[str, Any]
    name: str


def read_change_base(value: Any, url: str) -> RecordedChanges:
    """Read the base of the source at ``url``. Raises ``DamageError``, also where values are not of the types that its
    engine needs.
    """
    try:
        base = msgspec.convert(value, RecordedChanges)
        engine = registry.find(url)
        if engine is not None and engine.change_base:
            msgspec.convert(base.log, load_part(engine.change_base))
    except msgspec.ValidationError as exc:
        raise DamageError(
            layout.RECONCILIATION, expected="where the changes of a source begin", found=str(exc)
        ) from exc
    return base

"""What a table of the destination is without, because the destination, or its own rows there, would not have it. Each
is noted before it is done, so that the run that ends the restore names it, whichever run did it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from exporters.api import Loss
from exporters.mysql.identifiers import quote_literal
from migrate.restore.mysql.destination import DestinationConnection, mark_done, read_done

_STEP = "without "
_REASON_CHARACTERS = 400
"""A note has room for 700 characters."""


def note(connection: DestinationConnection, loss: Loss) -> None:
    """Note what is to be left out. Raises the driver's errors."""
    if _step(loss) not in read_done(connection):
        mark_done(connection, _step(loss))


def forget(connection: DestinationConnection, loss: Loss) -> None:
    """It is there nevertheless. Raises the driver's errors."""
    connection.run(f"DELETE FROM {connection.done} WHERE name = {quote_literal(_step(loss))}")


def conceded(connection: DestinationConnection) -> Iterator[Loss]:
    """Yield all that is noted."""
    for step in sorted(read_done(connection)):
        if step.startswith(_STEP):
            yield Loss(*json.loads(step.removeprefix(_STEP)))


def _step(loss: Loss) -> str:
    reason = loss.reason
    if len(reason) > _REASON_CHARACTERS:
        reason = f"{reason[: _REASON_CHARACTERS // 2]} … {reason[-_REASON_CHARACTERS // 2 :]}"
    return _STEP + json.dumps([loss.item, loss.property, reason], ensure_ascii=False)

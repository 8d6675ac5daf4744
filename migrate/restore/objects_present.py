"""What a target bucket holds already, compared with what it is to hold."""

from __future__ import annotations

from migrate.bundle.objects import ObjectRow
from migrate.store.s3_bucket_write import TargetBucket
from migrate.store.s3_listing import Listed

_SAME, _OTHER = "same", "other"


class Present:
    """The target as it was when the restore began. For one thread at a time."""

    def __init__(self, target: TargetBucket) -> None:
        self._target = target
        self._listed = Listed(target.list())

    def matches(self, key: str, row: ObjectRow) -> bool | None:
        """Tell whether the target's object of this key has the row's content; None where there is none."""
        found = self._listed.find(key)
        if found is None:
            return None
        summary, mark = found
        if not mark:
            mark = _SAME if self._target.holds(summary, row.content) else _OTHER
            self._listed.mark(key, mark)
        return mark == _SAME

    def foreign(self) -> str | None:
        """Return a key that was asked for by nobody, or None."""
        return next(self._listed.unmarked(), None)

    def close(self) -> None:
        """Forget it."""
        self._listed.close()

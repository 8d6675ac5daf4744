"""A source's own notes, at the location under ``_work/<source>/state/``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from migrate.bundle import layout
from migrate.errors import GoneError, UsageError
from migrate.storage.api import Store


class StoreWorkspace:
    """A ``Workspace`` (see ``exporters.api``) over a store: each file is one atomic ``put``. ``on_listed`` is called
    with the items that a listing finds.
    """

    def __init__(self, store: Store, source: str, on_listed: Callable[[int], None] | None = None) -> None:
        self._store = store
        self._source = source
        self.on_listed = on_listed

    def read(self, name: str) -> bytes | None:
        """Return the file's bytes, or None where there is none."""
        try:
            return self._store.read(self._key(name))
        except GoneError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write or replace the whole file."""
        self._store.put(self._key(name), data)

    def names(self, prefix: str = "") -> Sequence[str]:
        """Return the names that begin with ``prefix``, ordered by their UTF-8 bytes."""
        root = layout.workspace_file(self._source, "")
        return [info.key[len(root) :] for info in self._store.list(root + prefix)]

    def delete(self, name: str) -> None:
        """Remove the file; nothing happens where there is none."""
        self._store.delete(self._key(name))

    def listed(self, count: int) -> None:
        """See ``Workspace.listed``."""
        if (on_listed := self.on_listed) is not None:
            on_listed(count)

    def _key(self, name: str) -> str:
        if not layout.is_payload_name(name):
            raise UsageError(f"{self._source}: {name!r} cannot be the name of a workspace file")
        return layout.workspace_file(self._source, name)

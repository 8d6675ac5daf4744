"""A workspace that a run can be broken off at."""

from __future__ import annotations

from collections.abc import Sequence


class Workspace(dict[str, bytes]):
    """Files in memory; ``fail_after`` breaks off a run as a kill would."""

    fail_after = 1 << 60
    listed_items = 0

    def read(self, name: str) -> bytes | None:
        return self.get(name)

    def write(self, name: str, data: bytes) -> None:
        if len(self) >= self.fail_after:
            raise KeyboardInterrupt
        self[name] = data

    def names(self, prefix: str = "") -> Sequence[str]:
        return sorted(name for name in self if name.startswith(prefix))

    def delete(self, name: str) -> None:
        self.pop(name, None)

    def listed(self, count: int) -> None:
        self.listed_items += count

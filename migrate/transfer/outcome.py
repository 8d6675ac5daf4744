"""What a transfer came to."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from migrate.bundle.findings import Finding, only_extra


class TransferOutcome(Struct, frozen=True):
    """``files`` and ``size_bytes`` are what the bundle has; of these so many were moved now and so many lay
    there already.

    ``bytes_moved`` counts bodies sent to the destination, ``bytes_skipped`` bytes that were durable there from an
    earlier run. With ``findings`` other than files that no manifest names, the destination is left unsealed: repair the
    origin and run the same command again.
    """

    files: int
    size_bytes: int
    files_moved: int
    files_skipped: int
    bytes_moved: int
    bytes_skipped: int
    seconds: float
    findings: Sequence[Finding] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the whole bundle lies at the destination."""
        return only_extra(self.findings)

    @property
    def exit_code(self) -> int:
        """0, or 6 with findings."""
        return 6 if self.findings else 0

"""A sealed bundle travels from location to location."""

from __future__ import annotations

from migrate.transfer.clean import Leftover, clean
from migrate.transfer.outcome import TransferOutcome
from migrate.transfer.run import transfer
from migrate.transfer.status import TransferStatus, transfer_status

__all__ = ["Leftover", "TransferOutcome", "TransferStatus", "clean", "transfer", "transfer_status"]

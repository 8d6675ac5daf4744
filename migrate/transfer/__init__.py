"""A sealed bundle travels from location to location."""

from __future__ import annotations

from migrate.transfer.clean import Leftover, clean
from migrate.transfer.counters import TransferOutcome
from migrate.transfer.destination import TransferStatus, transfer_status
from migrate.transfer.run import transfer

__all__ = ["Leftover", "TransferOutcome", "TransferStatus", "clean", "transfer", "transfer_status"]

"""Export: sources become a bundle at a location, resumable by the same command from anywhere."""

from __future__ import annotations

from migrate.export.outcome import ExportOptions, ExportOutcome, SourceResult
from migrate.export.preflight import left_out_of
from migrate.export.run import already_sealed, export, seal_unasked
from migrate.export.status import ExportStatus, SourceStatus, export_status

__all__ = [
    "ExportOptions",
    "ExportOutcome",
    "ExportStatus",
    "SourceResult",
    "SourceStatus",
    "already_sealed",
    "export",
    "export_status",
    "left_out_of",
    "seal_unasked",
]

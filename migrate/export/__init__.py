"""Export: sources become a bundle at a location, resumable by the same command from anywhere."""

from __future__ import annotations

from migrate.export.outcome import BrokenSource, ExportOptions, ExportOutcome, SourceResult
from migrate.export.preflight import left_out_of
from migrate.export.run import already_sealed, export, seal_unasked

__all__ = [
    "BrokenSource",
    "ExportOptions",
    "ExportOutcome",
    "SourceResult",
    "already_sealed",
    "export",
    "left_out_of",
    "seal_unasked",
]

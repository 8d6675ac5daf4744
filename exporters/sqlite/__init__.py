"""SQLite databases: one file each."""

from __future__ import annotations

from exporters.sqlite.source import SqliteExporter, SqliteSource

__all__ = ["SqliteExporter", "SqliteSource"]

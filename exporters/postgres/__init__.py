"""PostgreSQL databases."""

from __future__ import annotations

from exporters.postgres.source import PostgresExporter, PostgresSource

__all__ = ["PostgresExporter", "PostgresSource"]

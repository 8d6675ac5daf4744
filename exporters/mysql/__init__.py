"""MySQL and MariaDB databases."""

from __future__ import annotations

from exporters.mysql.source import MysqlExporter, MysqlSource

__all__ = ["MysqlExporter", "MysqlSource"]

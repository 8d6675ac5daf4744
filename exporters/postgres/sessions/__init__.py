"""Connections to PostgreSQL: settings, the shared snapshot, locks and their timeouts."""

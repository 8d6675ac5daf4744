"""Rows into a PostgreSQL database."""

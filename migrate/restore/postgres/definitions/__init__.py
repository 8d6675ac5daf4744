"""Definitions into a PostgreSQL database: before the rows and after them."""

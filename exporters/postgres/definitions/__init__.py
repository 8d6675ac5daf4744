"""Definitions of a PostgreSQL database: what pg_dump prints, and what it leaves out."""

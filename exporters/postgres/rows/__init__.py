"""Rows of PostgreSQL tables: COPY output and the types of its columns."""

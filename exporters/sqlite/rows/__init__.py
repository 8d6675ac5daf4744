"""Rows of SQLite tables: read in blocks, typed, written as Parquet."""

"""Changes of a PostgreSQL source become rows at a PostgreSQL destination."""

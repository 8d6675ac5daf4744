"""Changes of a PostgreSQL source at its destination."""

"""PostgreSQL's own suites."""

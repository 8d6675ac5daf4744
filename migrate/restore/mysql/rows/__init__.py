"""Rows into a MySQL or MariaDB database."""

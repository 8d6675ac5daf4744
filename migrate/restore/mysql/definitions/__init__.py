"""Definitions into a MySQL or MariaDB database."""

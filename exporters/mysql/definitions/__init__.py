"""Definitions of a MySQL or MariaDB database, as SHOW CREATE prints them."""

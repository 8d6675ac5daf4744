"""Changes of a MySQL or MariaDB source become rows at a destination of the same flavour."""

"""MySQL and MariaDB databases."""

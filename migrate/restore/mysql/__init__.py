"""Brings MySQL and MariaDB databases back."""

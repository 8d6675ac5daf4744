"""Rows of MySQL and MariaDB tables: from the wire to Parquet and back."""

"""What a MySQL or MariaDB source writes after its snapshot."""

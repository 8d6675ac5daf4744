"""What a PostgreSQL source writes after its snapshot."""

"""Values that are too long to be whole in memory, from COPY text to Parquet and back."""

"""What all relational engines share: rows as lines of text, typed Arrow and Parquet, and back. Knows no engine."""

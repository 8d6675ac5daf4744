"""What a source bears while it is exported."""

"""A directory as a location."""

"""Changes of a source after its snapshot: kept next to the bundle."""

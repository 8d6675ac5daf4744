"""Changes of a source after its snapshot: kept beside the bundle."""

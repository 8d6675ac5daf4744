"""Export: sources become a bundle at a location, resumable by the same command from anywhere."""

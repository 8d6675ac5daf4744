"""Looking into a bundle: what is there, and single objects and rows of it, read by ranges."""

"""Objects from a bundle into a bucket."""

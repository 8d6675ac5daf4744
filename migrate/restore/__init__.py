"""Restore databases and buckets from a bundle."""

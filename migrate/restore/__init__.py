"""Databases and buckets are brought up again from a bundle."""

"""Reads sources: databases and buckets. Imports nothing of ``migrate``."""

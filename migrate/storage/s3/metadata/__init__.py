"""Metadata of S3 objects and buckets: headers, ACLs, settings."""

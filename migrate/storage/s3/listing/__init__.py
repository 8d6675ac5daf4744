"""Listings of S3 buckets: pages, their parser, listings in key order."""

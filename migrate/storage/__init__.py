"""Locations of bundles: directories and S3 buckets behind one contract."""

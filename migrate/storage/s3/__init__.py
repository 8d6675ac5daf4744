"""S3: a bucket and prefix as a location, buckets as sources and destinations."""

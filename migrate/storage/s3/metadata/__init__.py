"""What belongs to S3 objects and buckets besides bytes: headers, ACLs, settings."""

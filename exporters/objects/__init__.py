"""Object storage as a source: buckets of S3 and of servers with its API."""

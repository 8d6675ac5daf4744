"""The HTTP client for S3: signing, connections, many requests at once."""

"""Requests to S3 endpoints: signing, connections, many requests at once."""

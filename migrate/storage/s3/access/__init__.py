"""Narrow access to an S3 bucket for somebody else: accounts, sessions, presigned URLs."""

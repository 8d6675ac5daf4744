"""Signed documents between provider and customer."""

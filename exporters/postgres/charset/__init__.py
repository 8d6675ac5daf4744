"""Databases whose text is not valid UTF-8."""

"""Sync of whole version histories."""

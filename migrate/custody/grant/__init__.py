"""Grants: one customer may read one bundle until a date."""

"""Holds: files of a bundle, and sources, that cannot be changed until a date."""

"""Brings SQLite databases back."""

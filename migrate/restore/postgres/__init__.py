"""Brings PostgreSQL databases back."""

"""Connections to servers of every kind: which of them are open, and which server gives no answer."""

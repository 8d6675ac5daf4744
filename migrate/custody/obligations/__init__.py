"""Deadlines that laws and contracts set, evaluated from the custody log."""

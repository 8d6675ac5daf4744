"""Examines every source, destination and location of a move before the clock starts."""

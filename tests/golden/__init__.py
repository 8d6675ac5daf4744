"""A bundle of format 1 that every later version has to read."""

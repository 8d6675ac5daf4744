"""Repair: find the rows of a table that differ between a source, or a bundle, and a destination; write them."""

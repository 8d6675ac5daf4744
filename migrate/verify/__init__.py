"""Verify: is a bundle at a location what it says it is? Nothing here writes to the location."""

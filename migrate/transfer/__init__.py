"""A sealed bundle travels from location to location."""

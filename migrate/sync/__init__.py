"""A bucket kept in step with another one: one to one, without a bundle between them."""

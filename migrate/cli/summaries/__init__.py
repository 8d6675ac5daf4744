"""What commands show at their end, where that is much: on a terminal, and as JSON."""

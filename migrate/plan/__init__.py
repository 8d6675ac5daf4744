"""What is there, how long its move takes, and whether that is before the deadline."""

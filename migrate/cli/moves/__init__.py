"""What the commands share that carry a whole move: its summary, what follows databases, the buckets of a cutover."""

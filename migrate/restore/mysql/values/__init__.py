"""Values of rows as SQL literals, and values that the destination holds differently."""

"""``make scoreboard``: runs what takes long, in rounds, and writes what is promised and how often that was tried."""

"""SQLite databases: one file each."""

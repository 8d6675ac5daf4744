"""The case file: one move, described in TOML."""

"""How far a command is, on terminals, pages and by notifications."""

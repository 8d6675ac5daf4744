"""How far a command is, told on terminals, by pages and by notifications."""

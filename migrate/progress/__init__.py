"""How far a command is: counted while it runs, kept next to the bundle, shown alike on a terminal and elsewhere."""

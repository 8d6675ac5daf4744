"""How far a command is: counted while it runs, kept beside the bundle, shown alike on a terminal and elsewhere."""

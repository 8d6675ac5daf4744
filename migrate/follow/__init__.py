"""Follow and cutover: what a source writes after its snapshot arrives, until the switch."""

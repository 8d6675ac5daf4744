"""The custody log: who did what to a bundle, and when."""

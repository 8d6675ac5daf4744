"""What the restores of all relational engines share."""

"""Networks as they are: long, slow, lossy, broken."""

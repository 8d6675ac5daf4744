"""Keys, signatures and timestamps, in the formats of OpenSSH and RFC 3161."""

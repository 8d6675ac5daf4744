"""Changes that are carried on: compared with the databases' own replication."""

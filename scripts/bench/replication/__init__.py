"""Changes that are carried on: beside the databases' own replication."""

"""The bundle: names, commit records, lease, seal, reader. Specified in ``docs/FORMAT.md``."""

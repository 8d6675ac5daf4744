"""``python -m scripts.bench.moves``: whole databases to another server, compared with the tools of their engine."""

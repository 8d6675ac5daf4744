"""``python -m scripts.bench.moves``: whole databases to another server, beside the tools of their engine."""

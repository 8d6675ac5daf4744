"""Where the sample databases lie: ``$MOVEOUT_SAMPLES``, or ``shared/data`` beside or above the checkout."""

import os
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def sample(name: str) -> Path | None:
    """The path of a sample's file, None where it is not there."""
    locations = [parent / "shared/data" for parent in _ROOT.parents]
    if (given := os.environ.get("MOVEOUT_SAMPLES")) is not None:
        locations.insert(0, Path(given))
    return next((location / name for location in locations if (location / name).is_file()), None)

"""An export makes a sealed bundle that anyone can check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from migrate.export import export
from migrate.progress import Silent
from migrate.store import open_place
from tests.export.sources import Numbers

BAGIT = Path(sys.executable).with_name("bagit.py")


def test_a_bundle_is_a_bag(tmp_path):
    """bagit.py and sha256sum accept what was sealed, and nothing of the work is left."""
    outcome = export([Numbers()], open_place(str(tmp_path)), workers=2, progress=Silent())
    assert outcome.complete
    assert outcome.exit_code == 0
    assert outcome.files == 13
    subprocess.run([BAGIT, "--validate", tmp_path], check=True, capture_output=True)
    subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", "manifest-sha256.txt", "tagmanifest-sha256.txt"],
        cwd=tmp_path,
        check=True,
    )
    assert not (tmp_path / "_work").exists()

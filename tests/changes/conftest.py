"""What the tests of changes share."""

import pytest

from migrate.changes.segments import SegmentFolder
from migrate.storage.local.store import LocalStore


@pytest.fixture
def folder(tmp_path) -> SegmentFolder:
    folder = SegmentFolder(LocalStore(tmp_path), "app", 7)
    folder.begin()
    return folder

"""What the tests of the export share."""

import pytest

from migrate.storage.registry import open_location


@pytest.fixture
def store(tmp_path):
    return open_location(str(tmp_path / "location"))

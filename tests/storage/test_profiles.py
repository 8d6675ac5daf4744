"""The profiles of an S3 location come from AWS's own files."""

import os
import tempfile
from pathlib import Path

import pytest

from migrate.errors import NotAllowedError
from migrate.storage.s3.client import S3Location, session

NOBODY = 65534


@pytest.fixture
def open_folder():
    """A folder that every user may enter, which ``tmp_path`` is not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
def test_a_file_of_profiles_that_may_not_be_read_is_refused(variable, open_folder, monkeypatch):
    """botocore passes over it. The profile then has no endpoint, and its requests go to AWS."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        path = open_folder / name
        path.write_text("[profile old]\n[old]\nendpoint_url = http://127.0.0.1:9\n")
        monkeypatch.setenv(name, str(path))
    location = S3Location("media", "", "old")
    session(location)
    (open_folder / variable).chmod(0)
    own_user = os.geteuid()
    if own_user == 0:
        os.seteuid(NOBODY)
    try:
        with pytest.raises(NotAllowedError, match=variable):
            session(location)
    finally:
        os.seteuid(own_user)

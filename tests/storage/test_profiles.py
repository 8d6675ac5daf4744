"""The profiles of an S3 location come from AWS's own files."""

import os
import tempfile
from pathlib import Path

import pytest
from botocore.exceptions import UnknownServiceError

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


def test_a_session_makes_clients_of_the_services_that_botocore_has(monkeypatch):
    """Their folders are not all looked through for one client; who asks for an unknown one is told which there are."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    opened = session(S3Location("media", "", None, {"access_key_id": "key", "secret_access_key": "secret"}))
    assert opened.create_client("sts").meta.region_name == "eu-central-1"
    assert opened.get_credentials().access_key == "key"
    assert {"s3", "sts", "dynamodb"} <= set(opened.get_available_services())
    with pytest.raises(UnknownServiceError, match=r"nonsense.*dynamodb"):
        opened.create_client("nonsense")

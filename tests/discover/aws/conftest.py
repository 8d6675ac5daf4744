"""An AWS account on loopback: moto's server, with data in three regions."""

import pytest

from migrate.discover.aws.services import policy
from tests.discover.aws.moto_account import moto_account
from tests.discover.aws.sample_account import fill


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An account with more than 15 services in three regions. ``AWS_CONFIG_FILE`` has the profile ``owner`` of it, and
    ``mover``, which has the printed policy and nothing else.
    """
    folder = tmp_path_factory.mktemp("moto")
    with pytest.MonkeyPatch.context() as patch, moto_account(folder) as running:
        for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        running.add_profile("owner", "test", "test")
        fill(running.client)
        running.add_role("mover", policy())
        yield running

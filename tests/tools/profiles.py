"""AWS profiles beyond those of the running servers: other endpoints, wrong passwords."""

import os
import secrets
from pathlib import Path

import pytest

from scripts.servers import S3Server


def extra_profile(
    patch: pytest.MonkeyPatch,
    directory: Path,
    server: S3Server,
    *,
    endpoint: str = "",
    access_key: str = "",
    secret_key: str = "",
    session_token: str = "",
) -> str:
    """Make a profile like the server's with another endpoint, user or key, return its name."""
    name = f"extra-{secrets.token_hex(4)}"
    config, access = directory / f"{name}.config", directory / f"{name}.credentials"
    old_config = Path(os.environ["AWS_CONFIG_FILE"]).read_text()
    old_access = Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).read_text()
    config.write_text(
        f"{old_config}\n[profile {name}]\nregion = us-east-1\nendpoint_url = {endpoint or server.endpoint}\n"
    )
    access.write_text(
        f"{old_access}\n[{name}]\naws_access_key_id = {access_key or server.access_key}\n"
        f"aws_secret_access_key = {secret_key or server.secret_key}\n"
        + (f"aws_session_token = {session_token}\n" if session_token else "")
    )
    patch.setenv("AWS_CONFIG_FILE", str(config))
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(access))
    return name

"""The profiles of an S3 location come from AWS's own files."""

import json
import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.exceptions import UnauthorizedSSOTokenError, UnknownServiceError

from migrate.errors import NotAllowedError, UsageError
from migrate.storage import checksums
from migrate.storage.s3.access.presigned_urls import links
from migrate.storage.s3.client import S3Location, client, session
from migrate.storage.s3.http.client import HttpClient
from migrate.storage.s3.http.messages import Request
from migrate.storage.s3.http.signing import Signer
from tests.tools.http_proxy import Answer, HttpProxy, refusal

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


HERE = "[profile old]\nendpoint_url = http://127.0.0.1:9\n"
LOGIN = "login_session = arn:aws:iam::123456789012:user/me\n"
KEYS = "[old]\naws_access_key_id = a\naws_secret_access_key = b\n"


@pytest.mark.parametrize(
    ("config", "keys", "error", "said"),
    [
        (f"{HERE}{HERE}", KEYS, UsageError, "section 'profile old' already exists"),
        (HERE, "[old]\naws_access_key_id = a\n", NotAllowedError, "missing: aws_secret_access_key"),
        (HERE, "", NotAllowedError, "no credentials for s3://media"),
        ("", KEYS.replace("old", "new"), UsageError, "no AWS profile 'old'; there are: new"),
        (f"{HERE}credential_process = /bin/false\n", "", NotAllowedError, "no usable credentials: .*custom-process"),
        (f"{HERE}credential_process = echo none\n", "", NotAllowedError, "no usable credentials: Expecting value"),
        (HERE.replace("http:", "ftp:"), KEYS, UsageError, "ftp://127.0.0.1:9 is not a URL such as https://HOST:PORT"),
    ],
)  # fmt: skip
def test_a_profile_that_cannot_be_used_is_no_defect(config, keys, error, said, tmp_path, monkeypatch):
    for variable, text in {"AWS_CONFIG_FILE": config, "AWS_SHARED_CREDENTIALS_FILE": keys}.items():
        (tmp_path / variable).write_text(text)
        monkeypatch.setenv(variable, str(tmp_path / variable))
    with pytest.raises(error, match=said):
        client(S3Location("media", "", "old"))


def test_locations_of_a_profile_share_a_client_until_the_profile_changes(tmp_path, monkeypatch):
    """To make one takes ten milliseconds, and a service that gives credentials would be asked for each."""
    for variable, text in {"AWS_CONFIG_FILE": HERE, "AWS_SHARED_CREDENTIALS_FILE": KEYS}.items():
        (tmp_path / variable).write_text(text)
        monkeypatch.setenv(variable, str(tmp_path / variable))
    location = S3Location("media", "", "old")
    shared = client(location)
    assert client(S3Location("other", "prefix/", "old")) is shared
    own = S3Location("media", "", "old", {"access_key_id": "key", "secret_access_key": "secret"})
    assert session(own).get_credentials().access_key == "key"
    (tmp_path / "AWS_SHARED_CREDENTIALS_FILE").write_text(KEYS.replace("= a", "= other"))
    assert session(location).get_credentials().access_key == "other"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:10")
    assert client(location).meta.endpoint_url == "http://127.0.0.1:10"


def test_a_login_that_ends_in_the_middle_is_no_defect():
    class Ended:
        def get_frozen_credentials(self):
            raise UnauthorizedSSOTokenError

    with pytest.raises(NotAllowedError, match="no usable credentials: The SSO session"):
        Signer(Ended(), "us-east-1", "old:9000").head(Request("HeadObject", "HEAD", "k"), "/media/k")


def test_a_session_makes_clients_of_the_services_that_botocore_has(monkeypatch):
    """Their folders are not all looked through for one client; who asks for an unknown one is told which there are."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    opened = session(S3Location("media", "", None, {"access_key_id": "key", "secret_access_key": "secret"}))
    assert opened.create_client("sts").meta.region_name == "eu-central-1"
    assert opened.get_credentials().access_key == "key"
    assert {"s3", "sts", "dynamodb"} <= set(opened.get_available_services())
    with pytest.raises(UnknownServiceError, match=r"nonsense.*dynamodb"):
        opened.create_client("nonsense")


@pytest.mark.parametrize(
    ("variable", "setting"),
    [
        ("AWS_CONFIG_FILE", LOGIN),
        pytest.param("AWS_SHARED_CREDENTIALS_FILE", "", marks=pytest.mark.torture),
        pytest.param("AWS_CONFIG_FILE", "", marks=pytest.mark.torture),
        pytest.param("AWS_SHARED_CREDENTIALS_FILE", LOGIN, marks=pytest.mark.torture),
    ],
)
def test_botocore_takes_awscrt_along_where_a_profile_needs_it_for_its_login(variable, setting, tmp_path):
    """To load it takes 40 ms."""
    (tmp_path / "profiles").write_text(f"[default]\nregion = eu-central-1\n{setting}")
    files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), "/dev/null")
    look = "import sys, migrate.storage.s3.client, botocore.compat as c; print('awscrt' in sys.modules, c.HAS_CRT)"
    environment = os.environ | files | {variable: str(tmp_path / "profiles")}
    run = subprocess.run(
        [sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True
    )
    is_needed = bool(setting) or checksums.library().__name__ == "awscrt.checksums"
    assert run.stdout.split() == [str(is_needed)] * 2


class _EndedSessions(HttpProxy):
    """A server at which the session of the token ``old`` has ended."""

    def handle(self, asked):
        if asked.header("x-amz-security-token") == "old":
            return refusal(400, "ExpiredToken")
        return Answer(200, (("ETag", '"e"'),), b"body" if asked.method == "GET" else b"")


@pytest.mark.parametrize("given", ["in a file", "by a process"])
def test_credentials_that_the_user_has_renewed_are_taken_in_the_middle(given, tmp_path, monkeypatch):
    keys, config = tmp_path / "keys", tmp_path / "config"
    monkeypatch.setenv(
        "AWS_SHARED_CREDENTIALS_FILE", str(keys if given == "in a file" else tmp_path / "none")
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    def write(token: str) -> None:
        written = {"AccessKeyId": "key", "SecretAccessKey": "secret", "SessionToken": token, "Version": 1}
        keys.write_text(
            f"[old]\naws_access_key_id = key\naws_secret_access_key = secret\naws_session_token = {token}\n"
            if given == "in a file"
            else json.dumps(written)
        )

    with _EndedSessions("") as server:
        process = f"credential_process = cat {keys}\n" if given == "by a process" else ""
        for number, ask in enumerate(
            (
                lambda opened: opened.call(Request("GetObject", "GET", "k")),
                lambda opened: opened.call(Request("HeadObject", "HEAD", "k")),
                lambda opened: opened.boto.head_object(Bucket="media", Key="k"),
            )
        ):
            write("old")
            config.write_text(f"[profile old]\nendpoint_url = {server.endpoint}\n{process}# {number}\n")
            opened = HttpClient.of(S3Location("media", "", "old"))
            write("new")
            ask(opened)
        write("old")
        config.write_text(f"{config.read_text()}# ended\n")
        with pytest.raises(NotAllowedError, match="ExpiredToken"):
            HttpClient.of(S3Location("media", "", "old")).call(Request("GetObject", "GET", "k"))


def test_a_link_into_a_bucket_whose_requester_pays_says_so(tmp_path, monkeypatch):
    """Who opens it has the link only, and no header."""
    secrets = {"access_key_id": "key", "secret_access_key": "secret"}
    paid, plain = (
        dict(links(S3Location("media", "", None, secrets, requester_pays=pays), ["k"], timedelta(hours=1)))[
            "k"
        ]
        for pays in (True, False)
    )
    asked = parse_qs(urlsplit(paid).query)
    assert (asked["x-amz-request-payer"], asked["X-Amz-SignedHeaders"]) == (["requester"], ["host"])
    assert "request-payer" not in plain

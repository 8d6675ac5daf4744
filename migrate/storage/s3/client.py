"""S3 clients from URLs.

A URL is ``s3://bucket/prefix?profile=NAME``. The profile is one of AWS's own configuration files,
``endpoint_url`` included, so that every S3-compatible server is just a profile; without it the usual
``AWS_*`` variables hold.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

import botocore.config
import botocore.exceptions as boto_errors
import botocore.hooks
import botocore.loaders
import botocore.session
from msgspec import Struct, field
from msgspec.structs import replace

from exporters.connections.silent_servers import silence
from exporters.structs import WithSecrets
from migrate.case.secrets import CUSTOMER_KEY, Secret, is_reference, redact
from migrate.errors import (
    NotAllowedError,
    UsageError,
)
from migrate.runtime.crash_points import reached
from migrate.storage.outage import answer_seconds
from migrate.storage.s3.access.renewable_credentials import REFUSALS, make_renewable, renewed
from migrate.storage.s3.errors import CREDENTIAL_ERRORS, no_credentials
from migrate.storage.s3.http.connection import CONNECT_SECONDS
from migrate.storage.s3.http.messages import READING

_log = logging.getLogger(__name__)

_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
"""Names as botocore allows them: buckets that are older than today's rules have other names."""
_PAYER = "request_payer"
_PAYS = f"{_PAYER}=requester"
"""The option of a URL, named as in the AWS CLI."""
MAX_CONNECTIONS = 64
SECRET_NAMES = ("access_key_id", "secret_access_key", "session_token")
_KEPT = 16
"""How many sessions, and how many clients, are kept for the next location with the same profile."""
_VARIABLES = re.compile("AWS_.*|.*_PROXY|HOME|REQUESTS_CA_BUNDLE", re.IGNORECASE)
_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
_making_sessions = threading.Lock()
_building = threading.Lock()
"""Held while botocore builds something: two threads that opened a bucket each would both read its description of S3,
and both register its handlers.
"""


class S3Location(WithSecrets, frozen=True):
    """A parsed ``s3://`` URL. ``bucket`` is empty where it names a whole account. ``prefix`` is empty or ends with a
    slash where it names a location. ``CUSTOMER_KEY``
    may be among the secrets, in base64. ``requester_pays``: these credentials pay for what they read of a bucket of
    somebody else, and each request says so.
    """

    SECRETS: ClassVar[frozenset[str]] = frozenset({"secrets"})

    bucket: str
    prefix: str
    profile: str | None
    secrets: Mapping[str, str] = field(default_factory=dict)
    requester_pays: bool = False

    @property
    def folder(self) -> str:
        """The prefix of what lies below: empty, or with a slash at its end."""
        return self.prefix + "/" * (bool(self.prefix) and not self.prefix.endswith("/"))

    @property
    def url(self) -> str:
        """The URL again; it never holds secrets."""
        options = [f"profile={self.profile}"] if self.profile else []
        if self.requester_pays:
            options.append(_PAYS)
        query = f"?{'&'.join(options)}" if options else ""
        slash = "/" if self.bucket else ""
        return f"s3://{self.bucket}{slash}{quote(self.prefix)}{query}"

    @property
    def constant_headers(self) -> Mapping[str, str]:
        """The headers that every request of this location has (Amazon S3 user guide, "Requester Pays buckets")."""
        return {"x-amz-request-payer": "requester"} if self.requester_pays else {}


def parse(url: str, *, secrets: Mapping[str, str] | None = None) -> S3Location:
    """Parse an ``s3://`` URL. ``secrets`` (by the names in ``SECRET_NAMES``) go before the profile's.

    Raises ``UsageError`` with what is wrong in it.
    """
    location = _parse(url, secrets)
    if any(char in location.bucket for char in "*?[]"):
        raise UsageError(
            f"{url!r}: the name of a bucket takes no wildcards here",
            next_step="name each bucket: s3://BUCKET?profile=NAME; moveout discover 's3://?profile=NAME' lists them",
        )
    if not location.bucket:
        raise UsageError(
            f"{url!r} names an account, and no bucket",
            next_step="write s3://BUCKET/PREFIX?profile=NAME; moveout discover 's3://?profile=NAME' lists the buckets",
        )
    if not _BUCKET.fullmatch(location.bucket):
        raise UsageError(
            f"{location.bucket!r} is not the name of a bucket",
            next_step="write s3://BUCKET/PREFIX?profile=NAME",
        )
    return location


def parse_account(url: str, *, secrets: Mapping[str, str] | None) -> S3Location:
    """Parse the URL of a whole account: ``s3://?profile=NAME``, or one whose bucket is a pattern. The location names no
    bucket. Raises ``UsageError``.
    """
    return replace(_parse(url, secrets), bucket="", prefix="")


def _parse(url: str, secrets: Mapping[str, str] | None) -> S3Location:
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise UsageError(
            f"{url!r} is not an s3://bucket/prefix URL: {exc}",
            next_step="write s3://BUCKET/PREFIX?profile=NAME",
        ) from exc
    if parts.scheme != "s3":
        raise UsageError(f"{url!r} is not an s3://bucket/prefix URL")
    if "@" in parts.netloc:
        raise UsageError(
            "an s3:// URL takes no credentials",
            next_step="put them into a profile of ~/.aws/credentials and name it: s3://bucket?profile=NAME",
        )
    if "#" in url:
        raise UsageError(f"{url!r}: an s3:// URL takes no #", next_step="in a prefix write it as %23")
    query = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(set(query) - {"profile", CUSTOMER_KEY, _PAYER})
    if unknown:
        raise UsageError(
            f"{url!r}: unknown option {unknown[0]!r}; an s3:// URL takes profile=NAME, {_PAYS},"
            " and sse_c=file:PATH of a source"
        )
    if query.get(_PAYER, ["requester"]) != ["requester"]:
        raise UsageError(
            f"{url!r}: {_PAYER} is requester or nothing", next_step=f"write {_PAYS}, or leave it out"
        )
    profiles = query.get("profile")
    known = dict(secrets or {})
    if CUSTOMER_KEY in query:
        known[CUSTOMER_KEY] = _key(query[CUSTOMER_KEY][0])
    prefix, profile = unquote(parts.path.lstrip("/")), profiles[0] if profiles else None
    return S3Location(parts.netloc, prefix, profile, known, requester_pays=_PAYER in query)


def _key(reference: str) -> str:
    if not is_reference(reference):
        raise UsageError("sse_c takes no key itself", next_step="write sse_c=file:PATH or sse_c=env:VAR")
    return Secret(reference).reveal_key()


def session(s3_location: S3Location) -> Any:
    """Return botocore's session of the location's profile: boto3's costs 30 ms more. All locations with the same
    profile and secrets have the same one, until the files or variables of AWS change: to make a session with its client
    takes 10 ms, and a service that gives credentials is asked once. Raise NotAllowedError for a file of profiles that
    cannot be read: botocore passes over it, and a profile without its endpoint is one of AWS.
    """
    given = tuple(s3_location.secrets.get(name) for name in SECRET_NAMES)
    with _making_sessions:
        return _session(s3_location.profile, given, _surroundings())


def _surroundings() -> tuple[Any, ...]:
    """Return what a session depends on apart from its profile and secrets: variables, and the state of files."""
    variables = tuple((name, value) for name, value in os.environ.items() if _VARIABLES.fullmatch(name))
    return variables, *(_state_of(os.environ.get(name) or default) for name, default in _FILES.items())


def _state_of(path: str) -> tuple[int, ...]:
    try:
        status = Path(path).expanduser().stat()
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@functools.lru_cache(maxsize=_KEPT)
def _session(profile: str | None, given: tuple[str | None, ...], _: tuple[Any, ...]) -> Any:
    try:
        with _building:
            hooks, loader = copy.copy(_hooks()), _loader()
        inner = botocore.session.Session(profile=profile, event_hooks=hooks, include_builtin_handlers=False)
        for variable in ("config_file", "credentials_file"):
            _must_be_readable(Path(inner.get_config_variable(variable)).expanduser())
        inner.register_component("data_loader", loader)
        inner.get_scoped_config()  # looks for the profile
    except boto_errors.ProfileNotFound as exc:
        known = ", ".join(inner.available_profiles) or "none"
        raise UsageError(
            f"there is no AWS profile {profile!r}; there are: {known}",
            next_step="correct profile=NAME in the URL; AWS_CONFIG_FILE names another file of profiles",
        ) from exc
    except boto_errors.ConfigParseError as exc:
        why = str(exc.__context__ or exc).splitlines()[0]
        raise UsageError(
            f"{exc}: {why}", next_step="correct it: aws configure list-profiles reads it, too"
        ) from exc
    if any(given):
        inner.set_credentials(*given)
    return inner


def region_of(boto_session: Any) -> str | None:
    """Return the region that the profile of a session names."""
    region: str | None = boto_session.get_config_variable("region")
    return region


def _must_be_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except PermissionError as exc:
        raise NotAllowedError(
            f"{path}: permission denied, so the profiles in it are not known",
            next_step="let this user read the file, or name another one: AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE",
        ) from exc
    except OSError:
        return  # no such file: botocore says so where a profile needs it


@functools.cache
def _loader() -> Any:
    """Return what reads botocore's description of S3: 70 ms, needed once a process. By itself it opens the folders of
    400 services to see whether it has the one that is asked for: 30 ms more.
    """
    loader = botocore.loaders.create_loader()
    loader.list_available_services = functools.partial(_Services, loader)
    return loader


class _Services(Struct, frozen=True):
    """The names of the services of which there is a file of this type."""

    loader: Any
    type_name: str

    def __contains__(self, name: str) -> bool:
        try:
            self.loader.determine_latest_version(name, self.type_name)
        except boto_errors.DataNotFoundError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(type(self.loader).list_available_services(self.loader, self.type_name))


@functools.cache
def _hooks() -> Any:
    """Return the hooks with botocore's own handlers: to register them takes most of the time that a session takes."""
    hooks = botocore.hooks.HierarchicalEmitter()
    botocore.session.Session(event_hooks=hooks)
    return hooks


_CREDENTIALS_NEXT = (
    "the profile {} has none: write aws_access_key_id and aws_secret_access_key into it, in ~/.aws/credentials or where"
    " AWS_SHARED_CREDENTIALS_FILE says"
)


def client(
    s3_location: S3Location,
    *,
    signature: str | None = None,
    boto_session: Any = None,
    region: str | None = None,
    asks_silent: bool = False,
) -> Any:
    """Return a thread-safe botocore S3 client that never retries by itself and adds no checksums of its own
    accord. The signature covers our CRC64NVME header instead of a SHA-256 of every body. ``signature``: its
    version, whatever the profile says (botocore's Config, ``signature_version``). ``boto_session``: the location's
    session, where there is one already. ``region``: the bucket's, where the profile names another one.
    ``asks_silent``: also a server that the command goes on without. Locations with the same session share a client.
    """
    boto_session = boto_session or session(s3_location)
    if not _has_credentials(boto_session, s3_location.url):
        raise NotAllowedError(
            f"no credentials for {s3_location.url}",
            next_step=_CREDENTIALS_NEXT.format(s3_location.profile)
            if s3_location.profile
            else "name a profile (s3://bucket?profile=NAME) or set the AWS_* variables",
        )
    account = "" if asks_silent else replace(s3_location, bucket="", prefix="").url
    try:
        region = region or region_of(boto_session) or "us-east-1"
        with _building:
            headers = tuple(s3_location.constant_headers.items())
            return _client(boto_session, signature, region, answer_seconds(), account, headers)
    except (ValueError, boto_errors.BotoCoreError) as exc:
        raise UsageError(
            f"the settings for {s3_location.url} cannot be used: {exc}",
            next_step="correct endpoint_url, region and keys of the profile, or the AWS_* variables",
        ) from exc


@functools.lru_cache(maxsize=_KEPT)
def _client(
    boto_session: Any,
    signature: str | None,
    region: str,
    read_seconds: float,
    account: str,
    headers: tuple[tuple[str, str], ...],
) -> Any:
    config = botocore.config.Config(
        signature_version=signature,
        retries={"total_max_attempts": 1},
        max_pool_connections=MAX_CONNECTIONS,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=read_seconds,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": False},
    )
    made = boto_session.create_client("s3", config=config, region_name=region)
    _check_endpoint(made.meta.endpoint_url)
    if account:
        made.meta.events.register("before-send.s3", functools.partial(_refuse_silent, account))
    made.meta.events.register("before-call.s3", functools.partial(_begin_call, dict(headers)))
    made.meta.events.register("before-sign.s3", functools.partial(_begin_link, dict(headers)))
    made.meta.events.register("after-call.s3", _end_call)
    made.meta.events.register("needs-retry.s3", functools.partial(_renew, boto_session))
    return made


def _check_endpoint(url: str) -> None:
    """Raise ``ValueError`` for a URL to which nothing can be sent. A user and a password in it would be sent to nobody,
    and shown in errors.
    """
    parts = urlsplit(url)
    is_plain = not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in {"http", "https"} or not is_plain or parts.port == 0:
        raise ValueError(f"{redact(url)} is not a URL such as https://HOST:PORT")


def _has_credentials(boto_session: Any, url: str) -> bool:
    """Tell whether there are credentials, which are fetched where they are a service's."""
    try:
        credentials = boto_session.get_credentials()
        if credentials is None or credentials.get_frozen_credentials() is None:
            return False
    except CREDENTIAL_ERRORS as exc:
        raise no_credentials(exc, url) from exc
    make_renewable(boto_session)
    return True


def _refuse_silent(url: str, **_: Any) -> None:
    """Raise ``SourceSilentError`` where the command goes on without the server."""
    if (error := silence(url)) is not None:
        raise error


def _begin_call(headers: Mapping[str, str], model: Any, params: Any, **_: Any) -> None:
    params["headers"].update(headers)
    if model.http["method"] not in READING:
        reached(f"s3.{model.name}.before")


def _begin_link(headers: Mapping[str, str], request: Any, signature_version: Any, **_: Any) -> None:
    """Put into a link what its reader has no header for (Amazon S3 user guide, "Requester Pays buckets")."""
    if str(signature_version).endswith("-query"):
        request.params.update(headers)


def _renew(boto_session: Any, response: Any, operation: Any, attempts: int, **_: Any) -> Literal[0] | None:
    """Return 0, "send it again at once", where credentials have ended and were read again."""
    if response is None or attempts > 1 or response[0].status_code not in REFUSALS:
        return None
    code, is_head = response[1].get("Error", {}).get("Code", ""), operation.http["method"] == "HEAD"
    return 0 if renewed(boto_session.get_credentials(), code, is_head=is_head) else None


def _end_call(model: Any, http_response: Any, **_: Any) -> None:
    _log.info("%s %s: %d", model.name, http_response.url, http_response.status_code)
    if http_response.status_code < 300 and model.http["method"] not in READING:
        reached(f"s3.{model.name}.after")

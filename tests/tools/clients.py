"""boto3's clients, as any program has them."""

import functools
import os
from typing import Any

import boto3
import botocore.loaders
import botocore.session


def boto_client(profile: str, **options: Any) -> Any:
    """Return a client of a profile. One that nothing is special about is the same each time: to make one takes as long
    as twenty requests.
    """
    where = os.environ.get("AWS_CONFIG_FILE"), os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    return _made(profile, **options) if options else _shared(profile, *where)


@functools.cache
def _shared(profile: str, *_files: str | None) -> Any:
    return _made(profile)


def _made(profile: str, **options: Any) -> Any:
    """Make a client. Each would read botocore's description of S3 anew, which takes ten times as long as the rest."""
    inner = botocore.session.Session(profile=profile)
    inner.register_component("data_loader", _loader())
    return boto3.Session(botocore_session=inner).client("s3", **options)


@functools.cache
def _loader() -> Any:
    return botocore.loaders.create_loader()

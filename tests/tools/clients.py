"""boto3's clients, as any program has them."""

import functools
from typing import Any

import boto3
import botocore.loaders
import botocore.session


def boto_client(profile: str, **options: Any) -> Any:
    """Make a client of a profile. Each would read botocore's description of S3 anew, which takes ten times as long as
    all the rest.
    """
    inner = botocore.session.Session(profile=profile)
    inner.register_component("data_loader", _loader())
    return boto3.Session(botocore_session=inner).client("s3", **options)


@functools.cache
def _loader() -> Any:
    return botocore.loaders.create_loader()

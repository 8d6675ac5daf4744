"""Requests that bring archived objects back: RestoreObject (Amazon S3 API reference)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from migrate.errors import MoveoutError
from migrate.storage.s3.http.messages import Request, error_code

EXPEDITED, STANDARD_TIER = "Expedited", "Standard"
_UNDER_WAY = "RestoreAlreadyInProgress"
_BODY = (
    '<RestoreRequest xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Days>{days}</Days>'
    "<GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters></RestoreRequest>"
)


def restore_request(key: str, which: Mapping[str, str], days: int, tier: str) -> Request:
    """Return the request that asks for an object (``which``: its version) by a tier."""
    body = _BODY.format(days=days, tier=tier).encode()
    md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    headers = {"Content-MD5": md5, "Content-Type": "application/xml"}
    return Request("RestoreObject", "POST", key, {"restore": "", **which}, headers, body)


def is_under_way(error: MoveoutError) -> bool:
    """Tell whether it was asked for before."""
    return error_code(error) == _UNDER_WAY

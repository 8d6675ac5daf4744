"""Requests that change what can be changed of a version that is there: its tags, its locks, its ACL (Amazon S3 API
reference: PutObjectTagging, PutObjectRetention, PutObjectLegalHold, PutObjectAcl). Bytes, headers and metadata cannot.
All may be sent twice.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape

from exporters.bucket_api import ObjectSummary
from migrate.storage.s3.http.messages import Request
from migrate.storage.s3.http.read_responses import which

Change = Request
"""A request that ``DestinationBucket.amend`` sends."""
PRIVATE = "private"
"""The canned ACL of what is its owner's alone."""
_XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def tags_change(summary: ObjectSummary, tags: Mapping[str, str]) -> Request:
    """Return the request that gives a version these tags and no others."""
    query = {"tagging": ""} | which(summary)
    if not tags:
        return Request("DeleteObjectTagging", "DELETE", summary.key, query)
    listed = "".join(
        f"<Tag><Key>{escape(name)}</Key><Value>{escape(value)}</Value></Tag>" for name, value in tags.items()
    )
    body = f"<Tagging {_XMLNS}><TagSet>{listed}</TagSet></Tagging>"
    return _request("PutObjectTagging", summary, "tagging", body)


def retention_change(summary: ObjectSummary, mode: str, until: str) -> Request:
    """Return the request that locks a version; no lock is shortened by it."""
    body = f"<Retention {_XMLNS}><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
    return _request("PutObjectRetention", summary, "retention", body)


def hold_change(summary: ObjectSummary) -> Request:
    """Return the request that puts a legal hold on a version."""
    return _request(
        "PutObjectLegalHold", summary, "legal-hold", f"<LegalHold {_XMLNS}><Status>ON</Status></LegalHold>"
    )


def acl_change(summary: ObjectSummary, acl: str) -> Request:
    """Return the request that gives a version a canned ACL; an empty one is ``PRIVATE``."""
    query = {"acl": ""} | which(summary)
    return Request("PutObjectAcl", "PUT", summary.key, query, {"x-amz-acl": acl or PRIVATE})


def _request(operation: str, summary: ObjectSummary, what: str, text: str) -> Request:
    body = text.encode()
    md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    headers = {"Content-MD5": md5, "Content-Type": "application/xml"}
    return Request(operation, "PUT", summary.key, {what: ""} | which(summary), headers, body)

"""ACLs of objects and buckets, read as JSON, and given back where they name nobody. Grants to accounts mean something
at their own host only, those to everybody anywhere (Amazon S3 user guide, "Access control list overview").
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

_GROUPS = "http://acs.amazonaws.com/groups/global/"
_EVERYBODY, _SIGNED = _GROUPS + "AllUsers", _GROUPS + "AuthenticatedUsers"
_GROUP_IDS = {"all-users": _EVERYBODY}
"""Groups that versitygw (seen: 1.8.0) names by an id instead of their URI."""
CANNED: Mapping[frozenset[tuple[str, str]], str] = {
    frozenset({(_EVERYBODY, "READ")}): "public-read",
    frozenset({(_EVERYBODY, "READ"), (_EVERYBODY, "WRITE")}): "public-read-write",
    frozenset({(_SIGNED, "READ")}): "authenticated-read",
}
"""What is granted besides the owner's full control, and the canned ACL that says so (same guide, "Canned ACL")."""


def parse(body: bytes) -> Mapping[str, Any] | None:
    """Return the ACL of an answer to GetObjectAcl, as boto3 names its fields; None where it is no such answer: a server
    without ACLs may send the object.
    """
    try:
        root = ET.fromstring(body)  # noqa: S314 - expat expands no external entities
    except ET.ParseError:
        return None
    if root.tag.rpartition("}")[2] != "AccessControlPolicy":
        return None
    grants = []
    for grant in root.iterfind("{*}AccessControlList/{*}Grant"):
        grantee = {
            element.tag.rpartition("}")[2]: element.text or "" for element in grant.findall("{*}Grantee/*")
        }
        grants.append({"Grantee": grantee, "Permission": grant.findtext("{*}Permission") or ""})
    return {"Owner": {"ID": root.findtext("{*}Owner/{*}ID") or ""}, "Grants": grants}


def grants(acl: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Return what others than the owner may do: a group's URI or an account, and the permission."""
    owner = acl.get("Owner", {}).get("ID")
    grants = []
    for grant in acl.get("Grants", ()):
        grantee = grant.get("Grantee", {})
        grantee_id = grantee.get("URI") or grantee.get("ID") or grantee.get("EmailAddress") or ""
        if grantee.get("Type") == "Group":
            grantee_id = _GROUP_IDS.get(grantee_id, grantee_id)
        if grantee_id and grantee_id != owner:
            grants.append((grantee_id, str(grant.get("Permission", ""))))
    return grants


def to_text(acl: Mapping[str, Any]) -> str | None:
    """Return an ACL as the index keeps it; None where it grants nothing to anybody but the owner."""
    return json.dumps(acl, sort_keys=True) if grants(acl) else None


def canned(acl: Mapping[str, Any] | str) -> str:
    """Return the canned ACL that is the same, empty where none is."""
    read = json.loads(acl) if isinstance(acl, str) else acl
    return CANNED.get(frozenset(grants(read)), "")

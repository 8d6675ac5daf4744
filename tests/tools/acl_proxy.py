"""An S3 server with ACLs of objects: MinIO, which has none, behind a proxy that keeps the canned ones it is given."""

from dataclasses import dataclass, field

from tests.tools.http_proxy import Answer, Asked, HttpProxy

_GROUPS = "http://acs.amazonaws.com/groups/global/"
_GRANTS = {
    "private": (),
    "public-read": (("AllUsers", "READ"),),
    "authenticated-read": (("AuthenticatedUsers", "READ"),),
    "public-read-write": (("AllUsers", "READ"), ("AllUsers", "WRITE")),
}
_XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


@dataclass(slots=True)
class AclProxy(HttpProxy):
    """``with AclProxy(server.endpoint, name="AmazonS3") as proxy:``. ``acls``: by path. An ACL that is ``named`` grants
    something to another account.
    """

    acls: dict[str, str] = field(default_factory=dict)

    def handle(self, asked: Asked) -> Answer | None:
        if asked.method == "GET" and "acl" in asked.query and "/" in asked.path.strip("/"):
            return Answer(
                200, (("Content-Type", "application/xml"),), self._body(self.acls.get(asked.path, "private"))
            )
        acl = asked.header("x-amz-acl")
        if acl is not None and asked.method in {"PUT", "POST"}:
            self.acls[asked.path] = acl
        return self.forward(asked)

    def _body(self, acl: str) -> bytes:
        grants = _grant(f'<Grantee {_XSI} xsi:type="CanonicalUser"><ID>me</ID></Grantee>', "FULL_CONTROL")
        if acl == "named":
            grants += _grant(f'<Grantee {_XSI} xsi:type="CanonicalUser"><ID>you</ID></Grantee>', "READ")
        for group, permission in _GRANTS.get(acl, ()):
            who = f'<Grantee {_XSI} xsi:type="Group"><URI>{_GROUPS}{group}</URI></Grantee>'
            grants += _grant(who, permission)
        return (
            '<?xml version="1.0" encoding="UTF-8"?><AccessControlPolicy xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Owner><ID>me</ID></Owner><AccessControlList>{grants}</AccessControlList></AccessControlPolicy>"
        ).encode()


def _grant(grantee: str, permission: str) -> str:
    return f"<Grant>{grantee}<Permission>{permission}</Permission></Grant>"

"""An S3 server like SeaweedFS: MinIO behind a proxy that changes its answers. It takes a backslash for a slash, shows
no control character in a listing of versions, and keeps nothing of what is said of keys that end in a slash.
"""

from dataclasses import dataclass, replace

from tests.tools.http_proxy import Answer, Asked, HttpProxy


@dataclass(slots=True)
class RenamingProxy(HttpProxy):
    """``with RenamingProxy(server.endpoint) as proxy:`` for clients of ``proxy.endpoint``."""

    def handle(self, asked: Asked) -> Answer | None:
        answer = self.forward(asked)
        if asked.method == "HEAD" and asked.path.endswith("/"):
            other_headers = tuple(
                pair for pair in answer.headers if not pair[0].lower().startswith("x-amz-meta-")
            )
            return replace(answer, headers=other_headers)
        if asked.method == "GET" and "prefix" in asked.query:
            body = answer.body.replace(b"%5C", b"/")
            if "versions" in asked.query:
                body = body.replace(b"%01", b"%EF%BF%BD")
            return replace(answer, body=body, size_bytes=len(body))
        return answer

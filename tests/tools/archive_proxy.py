"""An S3 server with archived objects: MinIO behind a proxy that does with them what Amazon S3 does.

Objects of MinIO's class REDUCED_REDUNDANCY are shown as archived ones. What S3 does is from its API reference:
GetObject (InvalidObjectState), HeadObject (x-amz-restore), RestoreObject. The last is 202 when it begins, 409 while it
is under way, 200 once it is there; a tier that the class does not have is refused.
"""

import re
import threading
import time
from dataclasses import dataclass, field, replace

from tests.tools.http_proxy import Answer, Asked, HttpProxy, refusal

_REAL = "REDUCED_REDUNDANCY"
_TIERS = {"GLACIER": {"Bulk", "Standard", "Expedited"}, "DEEP_ARCHIVE": {"Bulk", "Standard"}}


@dataclass(slots=True)
class ArchiveProxy(HttpProxy):
    """``with ArchiveProxy(server.endpoint, seconds=1.0) as proxy:``. ``requests`` are the restores that were taken
    (path, tier, days); ``early`` counts reads of objects that were not there.
    """

    storage_class: str = "GLACIER"
    seconds: float = 1.0
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    early: int = 0
    _ready: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def bring_back(self) -> None:
        """Have all there that was asked for."""
        with self._lock:
            self._ready = dict.fromkeys(self._ready, 0.0)

    def handle(self, asked: Asked) -> Answer | None:
        if asked.method == "POST" and "restore" in asked.query:
            return self._restore(asked)
        if asked.method in {"GET", "HEAD"} and not asked.query.keys() - {"versionId", "partNumber"}:
            return self._object(asked)
        answer = self.forward(asked)
        listed = answer.body.replace(_REAL.encode(), self.storage_class.encode())
        return replace(answer, body=listed, size_bytes=len(listed))

    def _object(self, asked: Asked) -> Answer:
        answer = self.forward(asked)
        if answer.header("x-amz-storage-class") != _REAL:
            return answer
        ready = self._ready.get(asked.path)
        there = ready is not None and time.monotonic() >= ready
        if asked.method == "GET" and not there:
            self.early += 1
            return refusal(403, "InvalidObjectState")
        state = 'ongoing-request="false"' if there else 'ongoing-request="true"'
        restore_headers = [] if ready is None else [("x-amz-restore", state)]
        others = [one for one in answer.headers if one[0].lower() != "x-amz-storage-class"]
        return replace(
            answer, headers=(*others, ("x-amz-storage-class", self.storage_class), *restore_headers)
        )

    def _restore(self, asked: Asked) -> Answer:
        tier = re.search(rb"<Tier>(\w+)</Tier>", asked.body)
        days = re.search(rb"<Days>(\d+)</Days>", asked.body)
        if tier is None or days is None:
            return refusal(400, "MalformedXML")
        if tier[1].decode() not in _TIERS[self.storage_class]:
            return refusal(400, "InvalidRequest")
        with self._lock:
            ready = self._ready.get(asked.path)
            if ready is not None:
                return Answer(200) if time.monotonic() >= ready else refusal(409, "RestoreAlreadyInProgress")
            self._ready[asked.path] = time.monotonic() + self.seconds
            self.requests.append((asked.path, tier[1].decode(), int(days[1])))
        return Answer(202)

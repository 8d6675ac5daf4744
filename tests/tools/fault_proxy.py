"""An HTTP proxy in front of an S3 server to which planned faults happen, each of them counted."""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tests.tools.http_proxy import Answer, Asked, HttpProxy, refusal

Forward = Callable[[Asked], Answer]
CustodyEvent = Callable[[Asked, Forward], Answer | None]


def slow_down(_: Asked, __: Forward) -> Answer:
    return refusal(503, "SlowDown", ("Retry-After", "0.1"))


def internal_error(_: Asked, __: Forward) -> Answer:
    return refusal(500, "InternalError")


def lost_answer(asked: Asked, forward: Forward) -> None:
    forward(asked)


def cut_answer(asked: Asked, forward: Forward) -> Answer:
    """The connection breaks in the middle of the body."""
    answer = forward(asked)
    return replace(answer, sent_bytes=len(answer.body) // 2)


def short_answer(asked: Asked, forward: Forward) -> Answer:
    """The body is short, and what is announced agrees with it."""
    answer = forward(asked)
    body = answer.body[: len(answer.body) * 2 // 3]
    return replace(answer, body=body, size_bytes=len(body))


def flipped_answer(asked: Asked, forward: Forward) -> Answer:
    """One bit of the body is another one."""
    answer = forward(asked)
    return replace(answer, body=_flipped(answer.body))


def flipped_request(asked: Asked, forward: Forward) -> Answer:
    """One bit of what is sent is another one when it arrives."""
    return forward(replace(asked, body=_flipped(asked.body)))


def wrong_etag(asked: Asked, forward: Forward) -> Answer:
    answer = forward(asked)
    headers = (
        (name, '"0123456789abcdef0123456789abcdef"' if name.lower() == "etag" else value)
        for name, value in answer.headers
    )
    return replace(answer, headers=tuple(headers))


def error_in_success(_: Asked, __: Forward) -> Answer:
    """200, and an error in the body: S3 answers so when completing an upload fails after it has begun to answer."""
    return replace(refusal(200, "InternalError"), status=200)


def error_after_success(asked: Asked, forward: Forward) -> Answer:
    """The same, though the upload has been completed."""
    forward(asked)
    return replace(refusal(200, "InternalError"), status=200)


def has_answer_body(asked: Asked) -> bool:
    return asked.method == "GET"


def has_data(asked: Asked) -> bool:
    """Bytes of an object: of the XML of listings and tags S3 gives no checksum, there it is TLS that guards."""
    key = asked.path.count("/") > 1 and not asked.path.endswith("/")
    return asked.method == "GET" and key and asked.query.keys() <= {"versionId", "partNumber"}


def has_body(asked: Asked) -> bool:
    return asked.method == "PUT" and len(asked.body) > 0


def has_etag(asked: Asked) -> bool:
    return (
        asked.method in {"GET", "HEAD", "PUT"}
        and asked.path.count("/") > 1
        and not asked.query.keys() & {"tagging"}
    )


def completes(asked: Asked) -> bool:
    return asked.method == "POST" and "uploadId" in asked.query


def anything(_: Asked) -> bool:
    return True


KINDS: dict[str, tuple[CustodyEvent, Callable[[Asked], bool]]] = {
    "slow down": (slow_down, anything),
    "internal error": (internal_error, anything),
    "lost answer": (lost_answer, anything),
    "cut answer": (cut_answer, has_answer_body),
    "short answer": (short_answer, has_data),
    "flipped answer": (flipped_answer, has_data),
    "flipped request": (flipped_request, has_body),
    "wrong etag": (wrong_etag, has_etag),
    "error in success": (error_in_success, completes),
    "error after success": (error_after_success, completes),
}
"""Faults by name, and to which requests each may happen."""


@dataclass(slots=True)
class Planned:
    """A fault that happens to the ``nth`` request (from 1) that it may happen to, ``times`` in a row."""

    kind: str
    nth: int = 1
    times: int = 1
    seen: int = 0
    fired: int = 0


@dataclass(slots=True)
class FaultProxy(HttpProxy):
    """``with FaultProxy(server.endpoint, plan=[Planned("cut answer", nth=3)]) as proxy:``."""

    plan: Sequence[Planned] = ()
    counts: dict[str, int] = field(default_factory=dict)
    """How many requests each kind of fault might have happened to."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def handle(self, asked: Asked) -> Answer | None:
        new_event: CustodyEvent | None = None
        with self._lock:
            for kind, (_, fits) in KINDS.items():
                self.counts[kind] = self.counts.get(kind, 0) + fits(asked)
            for planned in self.plan:
                what, fits = KINDS[planned.kind]
                if not fits(asked):
                    continue
                planned.seen += 1
                if new_event is None and planned.nth <= planned.seen and planned.fired < planned.times:
                    planned.fired += 1
                    new_event = what
        return self.forward(asked) if new_event is None else new_event(asked, self.forward)

    def unfired(self) -> list[Planned]:
        return [one for one in self.plan if one.fired < one.times]


def _flipped(body: bytes) -> bytes:
    if not body:
        return body
    changed = bytearray(body)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)

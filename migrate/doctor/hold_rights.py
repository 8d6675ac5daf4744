"""What a followed source lacks for ``cutover --hold``: in the switch nobody has time to ask for rights."""

from __future__ import annotations

from contextlib import closing

from exporters.doctor import Finding, Fix, Severity
from migrate.case.model import Endpoint
from migrate.custody.source_holds.contract import HoldRequest
from migrate.custody.source_holds.source_hold import open_hold
from migrate.engines.registry import holds_objects
from migrate.errors import MoveoutError, NotAllowedError, UsageError

_CONSEQUENCE = (
    "The case has follow = true: cutover --hold is refused. Without --hold, stop the application yourself."
)


def hold_findings(endpoint: Endpoint) -> list[Finding]:
    """Return why a followed database could not be held now. Nothing is changed."""
    if not (endpoint.follow and endpoint.engine.hold) or holds_objects(endpoint.url):
        return []
    try:
        with closing(open_hold(endpoint, HoldRequest())) as hold:
            refusals = list(hold.refusals()) if hold.changes() else []
    except (NotAllowedError, UsageError) as exc:
        return [_finding("slow", endpoint, exc, _CONSEQUENCE)]
    except MoveoutError as exc:
        return [_finding("info", endpoint, exc, "Nothing is known about a hold.")]
    return [_finding("slow", endpoint, refusal, _CONSEQUENCE) for refusal in refusals]


def _finding(severity: Severity, endpoint: Endpoint, error: MoveoutError, consequence: str) -> Finding:
    return Finding(
        severity, "hold", endpoint.shown, error.reason, consequence, Fix("advice", error.next_step)
    )

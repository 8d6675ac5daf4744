"""A source is compared with a live one by the part that its engine brings."""

from __future__ import annotations

import pytest

from exporters.engine import Engine
from migrate.bundle.findings import Finding
from migrate.engines import registry
from migrate.errors import UsageError
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Silent
from migrate.verify.compare import ComparisonRequest, compare_source

SHELF = Engine("Shelf", ("shelf",), "", contents="objects", comparison=f"{__name__}:look_at_shelf")


def look_at_shelf(request: ComparisonRequest) -> list[Finding]:
    return [Finding("book", "is not there", request.url, repr(request))]


def request_for(url: str) -> ComparisonRequest:
    cancellation = CancellationToken()
    return ComparisonRequest(None, "app", url, 3, Silent(), read_all=True, cancellation=cancellation)


def test_a_comparison_of_an_engine_is_asked_with_all_that_was_asked_for(monkeypatch):
    monkeypatch.setattr(registry, "_by_scheme", lambda: {"shelf": SHELF})
    request = request_for("shelf://one")
    assert compare_source(request, "shelf://one") == look_at_shelf(request)


def test_what_no_engine_knows_cannot_be_compared():
    with pytest.raises(UsageError, match="not a database or bucket that moveout supports"):
        compare_source(request_for("shelf://one"), "shelf://one")

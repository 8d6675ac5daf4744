"""A source is compared with a live one by the part that its engine brings."""

from __future__ import annotations

from typing import Any

import pytest

from exporters.engine import Engine
from migrate.bundle.findings import Finding
from migrate.case.model import Endpoint
from migrate.engines import registry
from migrate.errors import UsageError
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Silent
from migrate.verify.compare import compare_source

SHELF = Engine("Shelf", ("shelf",), "", contents="objects", comparison=f"{__name__}:look_at_shelf")


def look_at_shelf(*asked: object, **options: Any) -> list[Finding]:
    return [Finding("book", "is not there", str(asked), str(sorted(options.items())))]


def test_a_comparison_of_an_engine_is_asked_with_all_that_was_asked_for(monkeypatch):
    monkeypatch.setattr(registry, "_by_scheme", lambda: {"shelf": SHELF})
    options = {
        "workers": 3,
        "progress": Silent(),
        "read_all": True,
        "cancellation": CancellationToken(),
    }
    assert compare_source("reader", "app", Endpoint("shelf://one"), digests=[], **options) == look_at_shelf(
        "reader", "app", "shelf://one", secrets={}, **options
    )


def test_what_no_engine_knows_cannot_be_compared():
    with pytest.raises(UsageError, match="no database or bucket that moveout supports"):
        compare_source(
            "reader",
            "app",
            Endpoint("shelf://one"),
            workers=1,
            progress=Silent(),
            read_all=False,
            digests=[],
        )

"""Which sources can be followed, and how."""

import pytest

from migrate.case.model import Endpoint
from migrate.changes.change_logs import followable, open_change_log
from migrate.errors import UsageError

URLS = {
    "app": "postgresql://127.0.0.1:9/app",
    "file": "sqlite:///app.db",
    "media": "s3://media",
    "unknown": "x://host/app",
}


def test_what_has_no_log_gets_delta_passes_and_what_has_no_rows_is_not_followed():
    requests = followable({name: Endpoint(url, retain_bytes=7) for name, url in URLS.items()})
    assert [(name, request.open is not None, request.retain_bytes) for name, request in requests.items()] == [
        ("app", True, 7),
        ("file", False, 7),
    ]
    assert requests["app"].open("case_app").leaves_objects is not None


def test_an_engine_without_a_log_is_refused():
    with pytest.raises(UsageError, match="followed"):
        open_change_log(Endpoint(URLS["file"]), "case_app")

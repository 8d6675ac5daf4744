"""Whether a bundle is whole: files that it does not name are no damage."""

from __future__ import annotations

from migrate.bundle.findings import Finding
from migrate.verify.outcome import VerifyOutcome


def test_a_bundle_is_whole_where_there_is_nothing_but_more_than_it_names():
    extra, damage = Finding("a", "is not in the manifest", extra=True), Finding("b", "is missing")

    def is_whole(*findings: Finding) -> bool:
        return VerifyOutcome(findings, 1, 1, (), "id", values=True).is_whole

    assert [is_whole(), is_whole(extra), is_whole(damage), is_whole(extra, damage)] == [
        True,
        True,
        False,
        False,
    ]

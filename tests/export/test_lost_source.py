"""A source that could not be opened, and an export in which no source could be read."""

from __future__ import annotations

import pytest

from exporters.errors import SourceGoneError, SourceNotAllowedError, SourceUnreachableError
from migrate.export.open_sources import UnreadableSource, no_source_error


def test_every_attempt_to_read_it_raises_the_reason():
    error = SourceGoneError("it is no more")
    source = UnreadableSource("app", "toy://app", error)
    for read in (source.survey, lambda: source.snapshot(None, workers=1)):
        with pytest.raises(SourceGoneError) as caught:
            read()
        assert caught.value is error
    source.close()


def test_one_reason_is_given_as_it_is():
    error = SourceGoneError("it is no more")
    assert no_source_error([("app", error)]) is error


@pytest.mark.parametrize(
    ("steps", "next_step"),
    [
        (("ask", "ask"), "ask"),
        (("ask", "wait"), "once these reasons are gone, run the same command again"),
    ],
)
def test_of_several_reasons_the_gravest_kind_is_raised_with_all_of_them(steps, next_step):
    errors = (
        SourceNotAllowedError("no", next_step=steps[0]),
        SourceUnreachableError("away", next_step=steps[1]),
    )
    failures = [("app", errors[0]), ("shop", errors[1])]
    gravest = max(errors, key=lambda error: error.exit_code)
    error = no_source_error(failures)
    assert errors[0].exit_code != errors[1].exit_code
    assert (type(error), error.next_step, error.causes) == (type(gravest), next_step, failures)

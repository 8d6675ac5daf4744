"""The error tree is the one that its docstring draws."""

import re

import pytest

from exporters import errors
from migrate import errors as migrate_errors

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and kind.__module__ == errors.__name__
}


def test_the_docstring_draws_every_error_with_its_exit_code():
    drawn = dict(re.findall(r"^[ │├└─]*(\w+Error) +(\d)  ", errors.__doc__, re.MULTILINE))
    assert {name: int(code) for name, code in drawn.items()} == {
        name: kind.exit_code for name, kind in CLASSES.items()
    }


def test_there_is_one_tree():
    assert all(issubclass(kind, errors.MoveoutError) for kind in CLASSES.values())
    assert {name: getattr(migrate_errors, name) for name in CLASSES} == CLASSES


@pytest.mark.parametrize("kind", [kind for name, kind in CLASSES.items() if name.startswith("Source")])
def test_an_error_of_a_source_says_its_side_and_its_kind(kind):
    error = kind("it broke", next_step="look")
    assert isinstance(error, errors.SourceError)
    assert not error.retryable
    kinds = {
        "SourceReplacedError": errors.GoneError,
        "SourceSilentError": errors.UnreachableError,
        "SourceNoRouteError": errors.UnreachableError,
        "SourceSnapshotLostError": errors.UnreachableError,
    }
    other = kinds.get(kind.__name__) or CLASSES.get(
        kind.__name__.removeprefix("Source"), errors.IncompleteError
    )
    of_no_other = {errors.SourceError, errors.SourceStateError}
    if kind not in of_no_other | {errors.SourceChangedError, errors.SourceDamagedError}:
        assert isinstance(error, other)
        assert error.exit_code == other.exit_code

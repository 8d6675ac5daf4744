"""Which rows an export takes in pieces."""

from contextlib import contextmanager

import pytest

from exporters.relational import chunk


@contextmanager
def long_rows():
    """Lend the list of rows that go by in pieces meanwhile."""
    found = []
    real = chunk._Rows.add_long
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk._Rows, "add_long", lambda self, row: (found.append(row), real(self, row)))
        yield found

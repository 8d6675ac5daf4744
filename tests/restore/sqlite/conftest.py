"""Fixtures that the restores share with the exports."""

from tests.exporters.sqlite.conftest import bundle, torture

__all__ = ["bundle", "torture"]

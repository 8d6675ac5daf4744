"""Fixtures that the restores share with the exports."""

from tests.exporters.postgres.conftest import exported, torture, torture_bundle

__all__ = ["exported", "torture", "torture_bundle"]

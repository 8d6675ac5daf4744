"""Fixtures that the restores share with the exports."""

from tests.exporters.mysql.conftest import my_exported, my_torture, my_torture_bundle

__all__ = ["my_exported", "my_torture", "my_torture_bundle"]

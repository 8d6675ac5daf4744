"""Fixtures that the restores share with the exports."""

from tests.exporters.objects.conftest import make_shop, server, shop, shops

__all__ = ["make_shop", "server", "shop", "shops"]

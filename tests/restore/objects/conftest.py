"""Fixtures that the restores share with the exports."""

from tests.exporters.objects.conftest import make_shop, odd, server, shop, shops

__all__ = ["make_shop", "odd", "server", "shop", "shops"]

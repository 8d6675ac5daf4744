"""Fixtures that the restores share with the exports."""

from tests.exporters.objects.conftest import filled, make_shop, odd, server, shop, shops

__all__ = ["filled", "make_shop", "odd", "server", "shop", "shops"]

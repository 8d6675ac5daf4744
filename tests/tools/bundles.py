"""A bundle at a location, read and restored."""

from migrate.bundle.reader import BundleReader
from migrate.engines import registry
from migrate.restore.restorer import RestoreRequest, restorer_of
from migrate.storage.registry import open_location


def read_bundle(location):
    return BundleReader(open_location(str(location)))


def restore_from(reader, source, url, *, password=None, **wishes):
    """Restore one source by its engine's restorer. ``wishes``: further fields of the ``RestoreRequest``."""
    secrets = {"password": password} if password else {}
    request = RestoreRequest(reader, source, url, secrets=secrets, **wishes)
    return restorer_of(registry.engine_for(url, url)).restore(request)

"""One source of a bundle restored, by its engine's restorer."""

from migrate.engines import registry
from migrate.restore.restorer import RestoreRequest, restorer_of


def restore_from(reader, source, url, *, password=None, **wishes):
    """Restore a source as a ``RestoreRequest`` with these fields wants it."""
    secrets = {"password": password} if password else {}
    request = RestoreRequest(reader, source, url, secrets=secrets, **wishes)
    return restorer_of(registry.engine_for(url, url)).restore(request)

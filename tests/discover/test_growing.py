"""The same command for a whole server, while the server goes, comes back and changes."""

import pytest

from migrate.bundle.reader import BundleReader
from migrate.storage.registry import open_location
from tests.cli.conftest import call


def sources_of(bundle):
    return {source.name: source.complete for source in BundleReader(open_location(str(bundle))).info.sources}


@pytest.mark.torture
def test_a_whole_server_that_was_down_is_taken_by_the_same_command(old_host, toxiproxy, tmp_path):
    bundle, made = tmp_path / "bundle", "grown"
    environment = {"PGPASSWORD": old_host.postgres.password}
    proxy = toxiproxy.proxy(f"http://{old_host.postgres.host}:{old_host.postgres.port}")
    port = proxy.endpoint.rpartition(":")[2]
    words = ("export", f"pg=postgresql://postgres@127.0.0.1:{port}/*", f"{old_host.my}/*", "--to", bundle)
    proxy.cut()
    ended = call(*words, env=environment)
    assert ended.code == 3, ended.err
    assert sources_of(bundle) == {"pg": False, "app": True, "blog": True}

    proxy.mend()
    ended = call(*words, env=environment)
    assert ended.code == 3, ended.err  # one database allows no connections
    wanted = {"pg-odd-name": True, "pg-app": True, "pg-closed": False, "pg-empty": True, "pg-locked": True}
    assert sources_of(bundle) == {**wanted, "app": True, "blog": True}

    old_host.postgres.database(made)
    try:
        assert call(*words, env=environment).code == 3
        assert sources_of(bundle) == {**wanted, "pg-grown": True, "app": True, "blog": True}
    finally:
        old_host.postgres.execute(f"DROP DATABASE {made}")
    ended = call(*words, env=environment)
    assert ended.code == 3, ended.err
    assert sources_of(bundle)["pg-grown"], "what was exported stays"

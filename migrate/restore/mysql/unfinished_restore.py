"""What a restore that has not ended keeps at a MySQL or MariaDB destination."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from exporters.mysql.connection import connect, parse_url
from exporters.mysql.control_tables import ControlTables, find_control_tables
from exporters.mysql.errors import as_source_errors
from exporters.mysql.identifiers import quote_name
from migrate.restore.common.api import UnfinishedRestore


def unfinished_restore(url: str, secrets: Mapping[str, str]) -> UnfinishedRestore | None:
    """See ``Engine.unfinished_restore``. What other restores have left out stays, and so do the triggers that a repair
    has dropped, and how far changes were applied. Raises ``SourceError``.
    """
    address = parse_url(url, secrets)
    with closing(connect(address)) as connection, as_source_errors(address.url):
        present, others = find_control_tables(connection)
        control = ControlTables.apart_from(others)
        if not present & {control.about, control.done}:
            return None
        of_all = {control.about, control.done, control.again, control.away, control.left_out}
        names = [name for name in control.names if name in present & of_all]
        if control.left_out in names:
            query = f"SELECT COUNT(*) FROM {quote_name(control.left_out)} WHERE step = ''"
            if connection.value(query):
                names.remove(control.left_out)
        about = f"SELECT bundle, source FROM {quote_name(control.about)}"
        rows = connection.rows(about) if control.about in present else []
    bundle, source = map(str, rows[0]) if rows else ("", "")
    labels = ", ".join(map(quote_name, names))
    return UnfinishedRestore(bundle, source, f"tables {labels}", f"DROP TABLE {labels};")

"""Settings of a whole MariaDB or MySQL, changed for the time of a test."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.exporters.mysql.databases import fetch, open_database


@contextmanager
def global_settings(*urls: str, **values: object) -> Iterator[None]:
    """Give global variables these values on the servers of the URLs, and put back what each had before."""
    with kept_settings(*urls, names=list(values)):
        for url in urls:
            _set(url, values)
        yield


@contextmanager
def kept_settings(*urls: str, names: Sequence[str]) -> Iterator[None]:
    """Put back, at the end, the global variables of these names that a test or moveout itself changes."""
    with ExitStack() as undo:
        for url in urls:
            [before] = fetch(url, f"SELECT {', '.join(f'@@GLOBAL.{name}' for name in names)}")
            undo.callback(_set, url, dict(zip(names, before, strict=True)))
        yield


def _set(url: str, values: dict[str, object]) -> None:
    with open_database(url) as connection, connection.cursor() as cursor:
        for name, value in values.items():
            cursor.execute(f"SET GLOBAL {name} = %s", (value,))

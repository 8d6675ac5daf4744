"""What a bundle says, and what of it was done when a run was killed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from tests.tools.commit_records import commit_records
from tests.torture.command import moveout, must


def tables_of(bundle: Path) -> dict[tuple[str, str, str], tuple[int, str]]:
    """Rows and digest of every table."""
    catalog = pq.read_table(bundle / "data/catalog.parquet").to_pylist()
    return {(row["source"], row["schema"], row["name"]): (row["items"], row["digest"]) for row in catalog}


def finished(location: Path) -> dict[str, tuple[int, int]]:
    """The payload files of units with a commit record, with inode and time: rewritten files have others."""
    files = {}
    for record in commit_records(location):
        for file in record["files"]:
            name = file["key"]
            path = location / name
            files[name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return files


def export_killed(
    words: Sequence[object], location: Path, moment: float, *, between: Callable[[], None] = lambda: None
) -> None:
    """Run an export, kill it at a moment, and run it again: nothing that was done is done again. ``between``: what
    happens meanwhile.
    """
    assert moveout(*words, kill_after=moment).code in {0, -9}
    before = finished(location)
    between()
    must(*words)
    for name, identity in before.items():
        path = location / name
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == identity, f"{name} was written again"

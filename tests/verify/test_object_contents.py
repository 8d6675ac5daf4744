"""An index against packs and large files: an object that the index has and the bundle has not is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from migrate.bundle import layout
from migrate.verify.object_contents import COLUMNS, IndexWalk
from migrate.verify.payload_files import ExpectedFile


@dataclass
class Index:
    """Stands for a reader that has nothing but an index."""

    batches: list[list[dict]]

    def index(self, source: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        assert source == "media"
        for rows in self.batches:
            yield pa.RecordBatch.from_pylist(rows).select(columns)


def row(key: str, **values: object) -> dict:
    nothing = dict.fromkeys(COLUMNS) | {"disposition": "exported", "is_delete_marker": False}
    types = {"pack": "", "large": "", "sha256": "", "offset": 0, "length": 0, "size": 0}
    return {name: nothing[name] if nothing[name] is not None else types.get(name) for name in COLUMNS} | {
        "key": key,
        **values,
    }


def packed(key: str, pack: str, offset: int | None, length: int | None, size: int | None = None) -> dict:
    size = length if size is None else size
    return row(key, pack=pack, offset=offset, length=length, size=size, sha256=f"of {key}")


def walk(*batches: list[dict]) -> tuple[list[tuple[str, list[str]]], list[str], int]:
    """Return the packs with the keys of their members, the findings, and how many objects are said to be there."""
    names = ("packs/1.tar", "packs/2.tar", "large/a")
    files = {
        key: ExpectedFile(key, f"hash of {name}", 9)
        for name in names
        for key in [layout.source_file("media", name)]
    }
    index = IndexWalk(Index(list(batches)), "media", files)
    jobs = list(index.packs())
    members = [member for job in jobs for member in job.members]
    assert [member.sha256 for member in members] == [f"of {member.key}" for member in members]
    packs = [(job.file.key, [member.key for member in job.members]) for job in jobs]
    return packs, [f"{finding.key}: {finding.what}" for finding in index.findings], index.exported


def test_objects_are_given_with_their_pack_and_a_pack_that_comes_again_is_given_again():
    assert walk(
        [packed("a", "packs/1.tar", 0, 5), packed("b", "packs/1.tar", 5, 0)],
        [packed("c", "packs/1.tar", 5, 1), packed("d", "packs/2.tar", 0, 5)],
        [
            row("gone", disposition="failed", pack="packs/3.tar"),
            row("deleted", is_delete_marker=True),
            row("big", large="large/a", sha256="hash of large/a"),
            packed("e", "packs/1.tar", 6, 1),
        ],
    ) == (
        [
            ("data/media/packs/1.tar", ["a", "b", "c"]),
            ("data/media/packs/2.tar", ["d"]),
            ("data/media/packs/1.tar", ["e"]),
        ],
        [],
        7,
    )
    assert walk() == ([], [], 0)


def test_an_object_without_its_bytes_is_named():
    nothing = packed("nothing", "packs/1.tar", 0, 5)
    packs, findings, exported = walk(
        [
            nothing | {"offset": None},
            nothing | {"key": "before", "offset": -1},
            nothing | {"key": "negative", "length": -2, "size": -2},
            nothing | {"key": "shorter", "size": 6},
            packed("whole", "packs/1.tar", 0, 5),
            row("nowhere"),
            row("no file", large="large/b", sha256="hash of large/b"),
            row("other file", large="large/a", sha256="hash of another"),
            packed("x", "packs/9.tar", 0, 5),
            packed("y", "packs/9.tar", 5, 5),
        ]
    )
    assert packs == [("data/media/packs/1.tar", ["whole"])]
    index = "data/media/index/: object "
    assert findings == [
        f"{index}'nothing' has no offset in its pack",
        f"{index}'before' has no offset in its pack",
        f"{index}'negative' has no offset in its pack",
        f"{index}'shorter' has no offset in its pack",
        f"{index}'nowhere' is exported, but to no file",
        f"{index}'no file' lies in a file that is not in the manifest",
        f"{index}'other file' has another SHA-256 than its file",
        "data/media/packs/9.tar: the index of media names it 2 times, but it is not in the manifest",
    ]
    assert exported == 10

"""What is known of a location spares requests, and never says what is not so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from migrate.bundle import layout
from migrate.errors import GoneError
from migrate.storage import known_files
from migrate.storage.api import FileInfo, MultipartStore, StoreWrapper
from migrate.storage.known_files import KnownFiles
from migrate.storage.local.store import LocalStore
from migrate.storage.testing import LocationContract

UNIT = "_work/shop/units/1.json"


class Asked(StoreWrapper):
    """Notes what is read and listed."""

    def __init__(self, store: MultipartStore) -> None:
        super().__init__(store)
        self.questions: list[str] = []

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.questions.append(key)
        return super().read(key, start, length)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        self.questions.append(prefix)
        return super().list(prefix, start_after=start_after)


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(LocalStore(tmp_path))


def known(store: MultipartStore) -> KnownFiles:
    """What an export knows."""
    files = KnownFiles(store, layout.is_note_of_export)
    with ThreadPoolExecutor() as threads:
        files.load_by(threads, (layout.EXPORT_STATE,), layout.WORK)
        return files


class TestContract(LocationContract):
    """The promises of a location hold for all who know the same."""

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[], MultipartStore]:
        files = KnownFiles(LocalStore(tmp_path))
        files.load(())
        return lambda: files.over(LocalStore(tmp_path))


def test_what_is_known_is_not_asked_for(asked: Asked) -> None:
    asked.put(UNIT, b"1")
    files = known(asked)
    asked.questions.clear()
    with pytest.raises(GoneError):
        files.read("_work/shop/final.json")
    files.put("_work/shop/plan.json", b"plan")
    assert files.read("_work/shop/plan.json") == b"plan"
    assert [info.key for info in files.list("_work/shop/")] == ["_work/shop/plan.json", UNIT]
    assert asked.questions == []


def test_what_others_write_is_asked_for(asked: Asked) -> None:
    files = known(asked)
    for key in (layout.LEASE, layout.RESERVE, f"{layout.PROGRESS}export.json", "data/shop/x"):
        asked.put(key, b"1")
        assert files.read(key) == b"1"
    assert len(list(files.list(layout.WORK))) == 3
    assert len(list(files.list(layout.DATA))) == 1


def test_two_ways_to_a_location_know_the_same(asked: Asked) -> None:
    files = known(asked)
    files.over(asked).put(UNIT, b"1")
    assert [info.key for info in files.list("_work/shop/units/")] == [UNIT]


def test_of_too_many_files_nothing_is_known(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_files, "_MOST_FILES", 2)
    files = known(asked)
    for number in range(4):
        files.put(f"_work/shop/units/{number}.json", b"1")
    assert len(list(files.list("_work/shop/units/"))) == 4
    assert files.read("_work/shop/units/0.json") == b"1"
    assert len(asked.questions) == 4

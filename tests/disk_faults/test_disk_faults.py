"""A disk fails at any call of a command: it ends with a clear error or finishes, and the same command completes it.

MOVEOUT_DISK_FAULTS faults for each command in the long run, MOVEOUT_SEED repeats them.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.storage.registry import open_location
from tests.cli.conftest import call
from tests.crash_points.custody_moves import Receive, Sign, events, succeed
from tests.crash_points.moves import ExportBucket, ExportSqlite, Move, RestoreSqlite, Transfer, content
from tests.exporters.sqlite import databases as sqlite
from tests.tools.failing_disk import FailingDisk, Failure
from tests.tools.tally import count

FEW, MANY = 3, int(os.environ.get("MOVEOUT_DISK_FAULTS", "12"))
HONEST = {3, 4, 5, 6, 8}
"""With gaps, not allowed (SQLite does not say why a file cannot be made), not reachable, damage found, no room."""
WRITING, READING = "wsrom", "l"


class ToFolder(Move):
    """A move whose destination is a folder that fails."""

    letters = WRITING
    folder: Path


class Exporting(ToFolder, ExportSqlite):
    def begin(self, number: int) -> None:
        super().begin(number)
        self.folder = self.location


class ExportingBucket(ToFolder, ExportBucket):
    """Packs and a large object to a folder."""

    def begin(self, number: int) -> None:
        super().begin(number)
        self.folder = self.location = self.directory / f"bundle-{number}"
        self.words[self.words.index("--to") + 1] = str(self.folder)

    def outcome(self) -> object:
        return content(str(self.location)), call("verify", self.location, "--level", "full").code


class Transferring(ToFolder, Transfer):
    def begin(self, number: int) -> None:
        super().begin(number)
        self.folder = self.copy


class Restoring(ToFolder, RestoreSqlite):
    def begin(self, number: int) -> None:
        super().begin(number)
        self.folder = self.directory / f"new-{number}"
        self.folder.mkdir(exist_ok=True)
        self.path = self.folder / "app.db"
        self.words[2] = f"app={sqlite.url_of(self.path)}"


class Signing(ToFolder, Sign):
    def begin(self, number: int) -> None:
        super().begin(number)
        self.folder = Path(self.location)


class Receiving(ToFolder, Receive):
    def begin(self, number: int) -> None:
        super().begin(number)
        self.folder = Path(self.location)

    def outcome(self) -> object:
        return super().outcome(), call("custody", "verify", self.location).code


class Erasing(ToFolder, Sign):
    """A bundle in a folder goes, and its certificate stays."""

    def begin(self, number: int) -> None:
        super().begin(number)
        succeed(*self.words)
        self.folder = Path(self.location)
        self.words = ["erase", self.location, "--key", str(self.key), "--override", "a test", "--yes"]

    def outcome(self) -> object:
        kinds = Counter(info.key.rpartition("-")[0] for info in open_location(self.location).list())
        return kinds, events(self.location), call("custody", "verify", self.location).code


class FromFolder(ToFolder):
    """A move whose bundle cannot be read."""

    letters = READING


class TransferringFrom(FromFolder, Transfer):
    def begin(self, number: int) -> None:
        super().begin(number)
        self.folder = self.directory / "bundle"


class RestoringFrom(FromFolder, RestoreSqlite):
    def begin(self, number: int) -> None:
        super().begin(number)
        self.folder = self.directory / "bundle"


class Verifying(FromFolder, Transfer):
    """A bundle is verified: whatever cannot be read is never called whole."""

    def begin(self, number: int) -> None:
        super().begin(number)
        self.folder = self.directory / "bundle"
        self.words = ["verify", str(self.folder), "--level", "full"]

    def outcome(self) -> object:
        return call(*self.words).code


MOVES: dict[str, tuple[type[ToFolder], tuple[str, ...]]] = {
    "export": (Exporting, ()),
    "export-bucket": (ExportingBucket, ("minio",)),
    "transfer": (Transferring, ()),
    "restore": (Restoring, ()),
    "sign": (Signing, ()),
    "receive": (Receiving, ()),
    "erase": (Erasing, ()),
    "transfer-from": (TransferringFrom, ()),
    "restore-from": (RestoringFrom, ()),
    "verify": (Verifying, ()),
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> FailingDisk:
    return FailingDisk.build(tmp_path_factory.mktemp("disk"))


def failures(calls: Counter[str], letters: str, seed: str) -> Iterator[Failure]:
    """Draw failures without end: each kind of call in turn, at any place."""
    draw = random.Random(seed)
    kinds = [letter for letter in letters if calls[letter]]
    while True:
        for letter in kinds:
            number = errno.EIO if letter == "l" else draw.choice([errno.ENOSPC, errno.EIO])
            yield Failure(letter, draw.randint(1, calls[letter]), draw.choice([1, 1, 0]), number)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        pytest.param("transfer", FEW, id="few-transfer"),
        *(pytest.param(name, MANY, id=f"many-{name}", marks=pytest.mark.torture) for name in MOVES),
    ],
)
@pytest.mark.timeout(3600)
def test_a_disk_fails_and_the_same_command_completes(request, disk, tmp_path, name, most):
    kind, fixtures = MOVES[name]
    move = kind(tmp_path, {fixture: request.getfixturevalue(fixture) for fixture in fixtures})
    move.begin(0)
    assert disk.run(move.folder, move.words).code == 0
    calls, expected = disk.calls(), move.outcome()
    seed = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
    drawn = failures(calls, move.letters, f"{seed}/{name}")
    score = Counter[str]()
    for number in range(1, most + 1):
        failure = next(drawn)
        move.begin(number)
        ended = disk.run(move.folder, move.words, failure)
        message = f"MOVEOUT_SEED={seed} {name} {number}, {failure}: {ended.code}\n{ended.out}{ended.err}"
        fired = disk.calls()[failure.letter.upper()]
        score[f"ended with {ended.code}" if fired else "did not happen"] += 1
        assert "Traceback" not in ended.err, message
        if ended.code:
            assert ended.code in HONEST, message
            assert ended.err.strip(), message
            again = call(*move.words)
            assert again.code == 0, f"{message}\nand then: {again.code} {again.out}{again.err}"
        assert move.outcome() == expected, message
        count("disk faults", bool(fired))
    sys.stderr.write(f"\n{name} (MOVEOUT_SEED={seed}): {dict(calls)} calls; {dict(score)}\n")
    # A run that is quicker renews the lease less often, so a call may not come that often.
    assert score["did not happen"] <= most // 4

"""What every location promises, tried on a directory, MinIO, versitygw, and the example of the guide."""

import errno
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from migrate.storage.api import MultipartStore
from migrate.storage.local.store import LocalStore
from migrate.storage.testing import LocationContract

EXAMPLE = Path(__file__).parents[1] / "examples/toy_location.py"
GUIDE = Path(__file__).parents[2] / "docs/guides/add-a-location.md"
Reopen = Callable[[], MultipartStore]


class TestOurs(LocationContract):
    """A directory, MinIO, versitygw."""

    tolerated = (".sgwtmp.",)
    """What versitygw 1.8.0 lists for a moment while it replaces a file (backend/posix/with_otmpfile.go)."""

    @pytest.fixture
    def reopen(self, reopen: Reopen) -> Reopen:
        return reopen


class TestWithoutHardLinks(LocationContract):
    """A directory of a file system without hard links, such as exFAT, that takes no fsync of a directory either."""

    @pytest.fixture
    def reopen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reopen:
        fsync = os.fsync

        def no_links(*_: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        def fsync_of_files(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            fsync(descriptor)

        monkeypatch.setattr(os, "link", no_links)
        monkeypatch.setattr(os, "fsync", fsync_of_files)
        return lambda: LocalStore(tmp_path / "location")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The variables of an environment in which the example is installed."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "toy_location.py").write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    information = folder / "toy_location-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-location\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[moveout.locations]\nonefile = toy_location:LOCATION\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield {**os.environ, "PYTHONPATH": str(folder)}
    sys.modules.pop("toy_location", None)


def guide():
    """The names that the guide's test defines."""
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names = {}
    exec(compile(blocks[-1], str(GUIDE), "exec"), names)
    return names


class TestExample(guide()["TestOneFile"]):
    """The location of the guide, by the test of the guide."""

    @pytest.fixture(autouse=True)
    def is_installed(self, installed):
        """Nothing else is needed."""


def test_the_guide_shows_the_example():
    assert EXAMPLE.read_text(encoding="utf-8") in GUIDE.read_text(encoding="utf-8")


@pytest.mark.torture
def test_a_bundle_goes_to_the_location_of_the_example_and_back(installed, tmp_path):
    """Another package's location is named by its URL wherever moveout's own are."""

    def moveout(*words):
        command = [Path(sys.executable).with_name("moveout"), *map(str, words), "--quiet"]
        done = subprocess.run(
            command, env=installed, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout

    with closing(sqlite3.connect(tmp_path / "a.db")) as made:
        made.execute("CREATE TABLE t AS SELECT 7 AS n")
    there = f"onefile://{tmp_path}/bundle.db"
    moveout("export", f"app=sqlite://{tmp_path}/a.db", "--to", there)
    moveout("verify", there, "--level", "full")
    moveout("transfer", there, tmp_path / "copy")
    moveout("verify", tmp_path / "copy")

"""A directory that others may have prepared: what their symbolic links lead to is neither read, written nor removed.
One into which others may not look.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from migrate.browse import single_objects
from migrate.errors import GoneError
from migrate.storage.local.store import LocalStore
from tests.cli.conftest import call, make_file


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """A directory of somebody else's, with a file."""
    path = tmp_path / "elsewhere"
    path.mkdir()
    (path / "thesis.txt").write_text("a")
    return path


@pytest.fixture
def bundle(tmp_path) -> Path:
    make_file(tmp_path / "n.db")
    assert call("export", f"n={tmp_path / 'n.db'}", "--to", tmp_path / "bundle").code == 0
    return tmp_path / "bundle"


def test_a_clean_removes_nothing_behind_a_link(bundle, elsewhere):
    (bundle / "_work").mkdir()
    (bundle / "_work/.tmp").symlink_to(elsewhere)
    ended = call("clean", bundle, "--yes")
    assert (ended.code, "is a symbolic link" in ended.err) == (7, True), ended.err
    assert [path.name for path in elsewhere.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.put("data/new", b""),
        lambda store: store.create("data/sub/new", b""),
        lambda store: store.begin("data/new"),
        lambda store: store.read("data/thesis.txt"),
        lambda store: store.delete("data/thesis.txt"),
    ],
    ids=["put", "create", "begin", "read", "delete"],
)
def test_no_key_leads_through_a_link(tmp_path, elsewhere, use: Callable[[LocalStore], object]):
    store = LocalStore(tmp_path / "location")
    store.put("one", b"")
    (tmp_path / "location/data").symlink_to(elsewhere)
    with pytest.raises(GoneError, match="is a symbolic link"):
        use(store)
    assert [path.name for path in elsewhere.iterdir()] == ["thesis.txt"]


def test_a_file_that_is_a_link_is_not_read(tmp_path, elsewhere):
    store = LocalStore(tmp_path / "location")
    store.put("one", b"")
    (tmp_path / "location/two").symlink_to(elsewhere / "thesis.txt")
    with pytest.raises(GoneError):
        store.read("two")


def test_a_location_that_is_a_link_itself_is_what_its_owner_wants(tmp_path, elsewhere):
    (tmp_path / "location").symlink_to(elsewhere)
    LocalStore(tmp_path / "location").put("data/one", b"b")
    assert (elsewhere / "data/one").read_bytes() == b"b"


def test_what_get_writes_goes_through_no_link(bundle, elsewhere, tmp_path):
    to = tmp_path / "to"
    assert call("get", bundle, "n", "t", "--to", to).code == 0
    (written,) = (path for path in to.rglob("*") if path.is_file())
    data = written.read_bytes()
    written.unlink()
    half = single_objects.half_written(written)
    half.symlink_to(elsewhere / "thesis.txt")
    assert call("get", bundle, "n", "t", "--to", to).code == 0
    assert (written.read_bytes(), (elsewhere / "thesis.txt").read_text()) == (data, "a")


def test_nobody_else_is_let_into_a_new_bundle(bundle, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    own.chmod(0o755)
    LocalStore(own).put("one", b"")
    LocalStore(tmp_path / "above/new").begin("one")
    modes = [path.stat().st_mode & 0o077 for path in (bundle, own, tmp_path / "above/new")]
    assert modes == [0, 0o055, 0]


@pytest.mark.parametrize("below", ["", "not-there"])
def test_somebody_elses_bundle_is_not_allowed(bundle, tmp_path, below):
    """It had been called a defect."""
    commands = [(verb, bundle / below) for verb in ("status", "ls", "verify", "clean")]
    commands.append(("export", tmp_path / "n.db", "--to", bundle / below))
    for command in commands:  # what they import may lie where only root reads
        call(*command)
    bundle.chmod(0)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        ended = [call(*command) for command in commands]
    finally:
        if is_root:
            os.seteuid(0)
        bundle.chmod(0o700)
    assert {run.code for run in ended} == {4}, [run.err for run in ended]

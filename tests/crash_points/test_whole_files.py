"""Files that are written in one step: a process that dies there leaves each as it was, or whole."""

import signal

import pytest

from migrate.case.loader import load
from migrate.runtime.crash_points import CRASH_AT, CRASH_LOG
from tests.cli.conftest import make_file, run
from tests.exporters.sqlite.databases import url_of

WRITTEN = {"discover.case_file", "hold.undo_file", "plan.run_history", "status_page.file"}


@pytest.mark.parametrize(("moment", "sources"), [("before", ["a"]), ("after", ["a", "b"])])
def test_a_case_file_is_as_it_was_or_whole(tmp_path, moment, sources):
    case, words = tmp_path / "case.toml", ("discover", "--to", tmp_path / "case.toml")
    make_file(tmp_path / "a.db")
    assert run(*words, url_of(tmp_path / "a.db")).code == 0
    case.chmod(0o640)
    make_file(tmp_path / "b.db")
    amend = ("discover", "-c", case, url_of(tmp_path / "b.db"))
    ended = run(*amend, env={CRASH_AT: f"discover.case_file.{moment}"})
    assert (ended.code, list(load(case).sources)) == (-signal.SIGKILL, sources), ended.err
    assert run(*amend).code == 0
    assert (list(load(case).sources), case.stat().st_mode & 0o777) == (["a", "b"], 0o640)


def test_each_step_is_reached(tmp_path):
    log, case = tmp_path / "points", tmp_path / "case.toml"
    env = {CRASH_LOG: str(log), "XDG_STATE_HOME": str(tmp_path)}
    make_file(tmp_path / "a.db")
    url = url_of(tmp_path / "a.db")
    for words in (
        ("discover", "--to", case, url),
        ("run", "-c", case, "--status-page", tmp_path / "page.html"),
        ("hold", "source", f"a={url}", "--reason", "a test", "--undo", tmp_path / "undo", "--yes"),
    ):
        ended = run(*words, env=env)
        assert ended.code in {0, 3}, ended.err  # 3: it comes up nowhere
    passed = {line.rpartition(".")[0] for line in log.read_text().split()}
    assert passed >= WRITTEN

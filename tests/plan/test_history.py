"""The moves of this machine are kept, and a history that cannot be read or written stops nobody."""

from migrate.plan.run_history import MOST_RUNS, add_run, history_path, read_history
from migrate.plan.stage_work import StageRecord
from tests.plan.plans import work


def test_the_newest_moves_are_kept_without_names(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for number in range(MOST_RUNS + 2):
        add_run([StageRecord(work("secret-name"), number + 0.5, ((1.0, 0.5),))])
    runs = read_history()
    assert len(runs) == MOST_RUNS
    assert [record.seconds for record in runs[-1]] == [MOST_RUNS + 1.5]
    assert runs[-1][0].marks == ((1.0, 0.5),)
    assert "secret-name" not in history_path().read_text()
    assert [path.name for path in history_path().parent.iterdir()] == ["moves.json"]


def test_a_history_that_makes_no_sense_is_none(tmp_path):
    path = tmp_path / "moves.json"
    assert read_history(path) == []
    for text in ("", "[]", '{"version": 2, "runs": []}', '{"version": 1, "runs": [[{"stage": "fly"}]]}'):
        path.write_text(text)
        assert read_history(path) == [], text
    (tmp_path / "file").write_text("")
    add_run([StageRecord(work(), 1.0)], tmp_path / "file" / "moves.json")

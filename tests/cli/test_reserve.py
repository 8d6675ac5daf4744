"""A run with a reserve: the bundle is sealed and sent before the deadline, and the rest follows."""

from datetime import UTC, datetime, timedelta

from migrate.bundle import layout
from migrate.export.seal_time import SealTime
from tests.cli.conftest import make_file, result

HEAD = """
[case]
name = "reserve"
deadline = {deadline}
reserve = "30m"
[bundle]
location = "bundle"
[transfer]
location = "moved"
[limits]
workers = 1
"""
SOURCE = """
[[source]]
name = "{name}"
url = "sqlite://{folder}/{name}.db"
priority = {priority}
"""
PRIORITIES = {"last": 3, "second": 2, "first": 1}


def test_what_is_ready_before_the_deadline_is_sent_and_the_rest_follows(tmp_path, monkeypatch):
    deadline = datetime.now(UTC) + timedelta(hours=1)
    text = HEAD.format(deadline=deadline.isoformat())
    for name, priority in PRIORITIES.items():
        make_file(tmp_path / f"{name}.db")
        text += SOURCE.format(name=name, folder=tmp_path, priority=priority)
    case = tmp_path / "moveout.toml"
    case.write_text(text)
    done = tmp_path / "bundle" / layout.final_record("first")

    def clock():
        """The time; that of the deadline once the first source is exported."""
        return deadline if done.exists() else datetime.now(UTC)

    def seal_time(deadline, reserve_seconds):
        return SealTime(deadline - timedelta(seconds=reserve_seconds), clock)

    monkeypatch.setattr("migrate.cli.moves.whole_move.seal_time_before", seal_time)
    steps = [step for step in result("run", "-c", case)["steps"] if step["step"] not in {"doctor", "plan"}]
    assert [step["step"] for step in steps] == ["export", "transfer", "export", "transfer", "verify"]
    assert [step["exit_code"] for step in steps] == [3, 3, 0, 0, 0]
    sealed = {source["name"]: source["complete"] for source in steps[0]["result"]["sources"]}
    assert list(sealed.items()) == [("first", True), ("second", False), ("last", False)]

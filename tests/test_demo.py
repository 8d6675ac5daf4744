"""The demo spares what is not its own, and says from outside what a resume saved."""

from pathlib import Path

import pytest

from scripts import demo
from scripts.demo_report import Figures


def test_a_directory_that_is_not_a_demo_s_is_left_alone(tmp_path, capsys):
    (tmp_path / "precious").write_text("data")
    assert demo.main(["--dir", str(tmp_path)]) == 1
    assert "is not empty and not an earlier demo's" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_command_that_fails_fails_the_demo_with_its_exit_code(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "MOVEOUT", Path("/bin/false"))
    with pytest.raises(demo.DemoError, match=r"`moveout export -c moveout.toml --workers 2` ended with 1"):
        demo.run_command(["export", "--workers", "2"], work=tmp_path, environment={})


def test_what_the_resume_saved_is_the_bundle_less_what_the_second_run_sent():
    figures = Figures(
        bundle_bytes=250_000_000, sent_before_kill_bytes=130_000_000, sent_after_kill_bytes=136_000_000
    )
    assert figures.resume_words().startswith("saved 114.0 MB; 16.0 MB travelled twice")

"""``make`` alone says what can be made, and a machine that cannot be set up is told why."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NIGHT = [
    "discover",
    "doctor",
    "plan",
    "evacuate",
    "status",
    "export",
    "transfer",
    "verify",
    "restore",
    "clean",
]
"""The targets of a move, in the order in which they are needed."""


def make(*words):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout


def test_make_alone_lists_every_target_with_a_line_the_move_first():
    listed = [line.split()[1] for line in make().splitlines() if line.startswith("  make ")]
    assert listed[: len(NIGHT)] == NIGHT
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {*listed, "help"} == {target for line in phony for target in line.split()}


@pytest.mark.parametrize("verb", [verb for verb in NIGHT if verb != "evacuate"])
def test_case_names_the_case_file_of_a_command(verb):
    assert f"moveout {verb} -c 'an other.toml'" in make("-n", verb, "CASE=an other.toml")
    assert make("-n", verb, "CASE=other.toml", "ARGS=--json").rstrip().endswith(" --json")


def test_discover_writes_the_case_file_where_servers_are_named():
    output = make("-n", "discover", "CASE=other.toml", "FROM=postgresql://old 's3://?profile=old'")
    assert "moveout discover --to 'other.toml' postgresql://old 's3://?profile=old'" in output


def test_discover_without_servers_and_without_a_case_file_says_how_to_name_them_before_the_setup(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        make("discover", f"CASE={tmp_path}/none.toml", f"VENV={tmp_path}/venv", "PIP=false")
    assert "make discover FROM='" in failed.value.stderr


def test_evacuate_is_the_whole_run():
    assert "moveout run -c 'other.toml'" in make("-n", "evacuate", "CASE=other.toml")


def test_each_step_of_setup_begins_with_a_line_that_names_it():
    steps = make("-n", "-W", "pyproject.toml", "setup").splitlines()
    installing = [number for number, line in enumerate(steps) if "pip" in line and " install " in line]
    assert len(installing) == 3
    assert all(steps[number - 1].startswith('echo "setup: ') for number in installing)


def test_an_old_python_is_refused_with_a_next_step(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    script = ROOT / "scripts" / "make_venv.sh"
    done = subprocess.run(
        [script, tmp_path / "venv"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": old},
    )
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert "make setup PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()

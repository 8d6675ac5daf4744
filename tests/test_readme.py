"""Every command of the README's tour runs, in order, in one shell, as it stands there."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.servers import FOREIGN

ROOT = Path(__file__).parent.parent


def blocks():
    """The ``sh`` blocks of the README: the first one starts the servers."""
    return re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.fixture
def tour(tmp_path):
    """A checkout's face in a fresh folder: the Makefile and what it needs, and the README's servers running."""
    for name in ("Makefile", "scripts", "migrate", "exporters", "requirements", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    # The environment that runs the test is the one, however old it looks: to make it anew from here would break it.
    (tmp_path / ".venv").mkdir()
    for part in (ROOT / ".venv").iterdir():
        (tmp_path / ".venv" / part.name).symlink_to(part)
    (tmp_path / ".venv/.ready").unlink(missing_ok=True)
    (tmp_path / ".venv/.ready").touch()
    env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    first = blocks()[0].strip()
    assert first.startswith("make servers")
    with (tmp_path / "servers.log").open("wb") as log:
        servers = subprocess.Popen(
            ["bash", "-c", f"exec {first}"],
            cwd=tmp_path,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 90
        while b"Ctrl-C" not in (tmp_path / "servers.log").read_bytes():
            assert servers.poll() is None, (tmp_path / "servers.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield tmp_path, env
    finally:
        os.killpg(servers.pid, signal.SIGTERM)
        servers.wait(30)


@pytest.mark.skipif(
    not (ROOT / ".venv/bin/moveout").exists(), reason="the README speaks of .venv: run make setup"
)
def test_the_tour_runs_as_written(tour):
    folder, env = tour
    script = "set -euo pipefail\n" + "\n".join(blocks()[1:])
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "IN TIME" in done.stdout
    assert "Sealed, complete" in done.stdout
    assert "app and " in done.stdout
    assert "media and " in done.stdout
    assert done.stdout.count(" agree: ") == 2


def test_every_command_of_the_readme_exists():
    named = set(re.findall(r"`moveout (\w+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    helped = subprocess.run(
        [Path(sys.executable).parent / "moveout", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert named
    assert all(re.search(rf"^  {name} ", helped, re.MULTILINE) for name in named)

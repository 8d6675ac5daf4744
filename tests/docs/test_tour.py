"""Every command of the tutorial and of the README runs, in order, and prints what stands below it. One that both have
runs once.
"""

import os
import re
import signal
import subprocess
import time
from string import Template

import pytest

from scripts.servers import FOREIGN
from tests.conftest import GO_SETTINGS
from tests.docs.guide_shell import run_text
from tests.docs.pages import ROOT, blocks

TUTORIAL = "docs/tutorial.md"


@pytest.fixture
def tour(tmp_path):
    """A checkout's face in a fresh folder: the Makefile and what it needs, and the tutorial's servers running."""
    for name in ("Makefile", "scripts", "migrate", "exporters", "requirements", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    # The environment that runs the test is the one, however old it looks: to make it anew from here would break it.
    (tmp_path / ".venv").mkdir()
    for part in (ROOT / ".venv").iterdir():
        (tmp_path / ".venv" / part.name).symlink_to(part)
    (tmp_path / ".venv/.ready").unlink(missing_ok=True)
    (tmp_path / ".venv/.ready").touch()
    env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)} | GO_SETTINGS
    first = blocks(TUTORIAL, "sh")[0].strip()
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
        while b"Ctrl-C" not in (tmp_path / "servers.log").read_bytes():
            assert servers.poll() is None, (tmp_path / "servers.log").read_text()
            time.sleep(0.2)
        yield tmp_path, env
    finally:
        os.killpg(servers.pid, signal.SIGTERM)
        servers.wait(30)


def masked(text):
    """The lines of an output without what differs from run to run: numbers, units, places."""
    for pattern, word in (
        (r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID"),
        (r"file:///\S+", "FILE"),
        (r"127\.0\.0\.1:\d+", "HOST"),
        (r"\d+-\d+-\d+[T ]\d+:\d+(:\d+)?", "TIME"),
        (r"\d[\d,.]*", "N"),
        (r"N [kMG]?B", "N B"),
        (r"N (h|min|m?s)\b( N (min|s)\b)?", "N s"),
        (r"─{3,}", "RULE"),
    ):
        text = re.sub(pattern, word, text)
    return {" ".join(line.split()) for line in text.splitlines() if line.strip()}


def variables_after(text, folder, env):
    """The variables of a shell that has run the text; None for those of the run's servers that it does not have."""
    words = ["bash", "-euo", "pipefail", "-c", f"{text}\nenv -0"]
    out = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout
    own = dict.fromkeys((name for name in os.environ if name.startswith(FOREIGN)), None)
    return own | dict(line.split("=", 1) for line in out.split("\0") if line)


@pytest.mark.skipif(
    not (ROOT / ".venv/bin/moveout").exists(), reason="the tutorial speaks of .venv: run make setup"
)
@pytest.mark.timeout(1800)  # on a busy machine
def test_the_tour_runs_as_written(tour):
    folder, env = tour
    begin, *tutorial = blocks(TUTORIAL, "sh")[1:]
    lines = "".join(blocks("README.md", "sh")).splitlines()
    env = variables_after(begin, folder, env)
    output = ""
    for text in (*tutorial, "\n".join(line for line in lines if line not in "".join(tutorial))):
        ended = run_text(Template(text).safe_substitute(env), folder=folder, env=env)
        output += ended.out + ended.err
        assert ended.code == 0, output
    printed = masked(output)
    shown = [
        *blocks(TUTORIAL, "text"),
        *(text for text in blocks("README.md", "text") if "make " not in text),
    ]
    assert len(shown) > 8
    assert masked("\n".join(shown)) - printed == set()

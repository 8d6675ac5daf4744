"""What is said before anything is begun: a wrong word, a missing package, a scheduler that does not answer."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.process import free_port
from tests.cli.conftest import call


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scheduler", "nowhere.json"), "no scheduler file"),
        (("--scheduler", "odd://h:1"), "is not a scheduler"),
    ],
)
@pytest.mark.parametrize("verb", ["export", "transfer", "restore"])
def test_a_wrong_word_is_2_and_names_it(verb, words, said, tmp_path):
    ends = {
        "export": ("media=s3://b", "--to", tmp_path),
        "transfer": (tmp_path, tmp_path / "there"),
        "restore": (tmp_path, "media=s3://b"),
    }
    ended = call(verb, *ends[verb], *words)
    assert ended.code == 2
    assert said in ended.err


def test_without_the_packages_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    ended = call("transfer", tmp_path, tmp_path / "there", "--scheduler", "tcp://h:1")
    assert ended.code == 2
    assert "pip install 'moveout[cluster]'" in ended.err


def test_nothing_of_it_is_imported_by_the_command(tmp_path):
    """They are an extra: who does not ask for them need not have them."""
    code = "import sys, migrate.cli; sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0


def test_a_scheduler_that_does_not_answer_is_5(tmp_path, monkeypatch):
    monkeypatch.setattr("migrate.cluster.dask_client.CONNECT_SECONDS", 0.5)
    address = f"tcp://127.0.0.1:{free_port()}"
    ended = call("transfer", tmp_path, tmp_path / "there", "--scheduler", address)
    assert ended.code == 5, ended.err
    assert "no scheduler answers" in ended.err

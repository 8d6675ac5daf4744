"""What docs/guides/many-machines.md tells people to type."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import pytest
import yaml

TEXT = (Path(__file__).parents[2] / "docs/guides/many-machines.md").read_text()


@pytest.mark.parametrize("command", ["scheduler", "worker"])
def test_the_options_of_dask_exist(command):
    lines = [line for line in TEXT.splitlines() if f"dask {command} " in line]
    documented = {
        word for line in lines for word in re.findall(r"--[a-z-]+", line.split(f"dask {command} ")[1])
    }
    main = importlib.import_module(
        f"distributed.cli.dask_{command}"
    ).main  # a second, which collecting would take
    known = {option for parameter in main.params for option in parameter.opts + parameter.secondary_opts}
    assert documented
    assert documented <= known


def test_the_manifests_are_yaml():
    manifests = list(yaml.safe_load_all(re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[1]))
    assert [one["kind"] for one in manifests] == ["Deployment", "Service", "Deployment", "Job"]


def test_the_job_script_is_bash():
    script = re.search(r"```sh\n(#!.*?)```", TEXT, re.DOTALL)[1]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)

"""The ways to get moveout: a wheel, a container, a service, a Job."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib
import venv
from contextlib import closing
from pathlib import Path

import pytest
import typer
import yaml

from migrate import errors
from migrate.case import loader
from tests.cli.conftest import command_line
from tests.docs.pages import ROOT, blocks

HUMAN_NEEDED = {
    kind.exit_code
    for kind in (
        errors.UsageError,
        errors.IncompleteError,
        errors.NotAllowedError,
        errors.DamageError,
        errors.GoneError,
        errors.NoSpaceError,
        errors.DeadlineError,
    )
}
"""The exit codes after which the same command would end in the same way."""


@pytest.fixture
def checkout(tmp_path):
    """What a wheel is built from, in a folder of its own."""
    folder = tmp_path / "checkout"
    for name in ("migrate", "exporters"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_the_unit_is_one_of_systemd(tmp_path):
    text = (ROOT / "deploy/moveout.service").read_text()
    unit = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert set(map(int, unit["RestartPreventExitStatus"].split())) == HUMAN_NEEDED
    assert int(unit["SuccessExitStatus"]) == errors.INTERRUPTED
    assert (unit["UMask"], unit["StateDirectoryMode"]) == ("0077", "0700")
    program, *words = unit["ExecStart"].split()
    _takes(words)
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("NOT TESTED: there is no systemd-analyze on this machine")
    # It wants the program to be there.
    (tmp_path / "moveout.service").write_text(text.replace(program, f"{Path(sys.executable).parent}/moveout"))
    done = subprocess.run(
        [analyze, "verify", tmp_path / "moveout.service"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_job_has_a_case_file_and_a_command_that_moveout_takes(tmp_path):
    text = (ROOT / "deploy/kubernetes.yaml").read_text()
    parts = {part["kind"]: part for part in yaml.safe_load_all(text)}
    assert set(parts) == {"ConfigMap", "PersistentVolumeClaim", "Job"}
    (tmp_path / "moveout.toml").write_text(parts["ConfigMap"]["data"]["moveout.toml"])
    case = loader.load(tmp_path / "moveout.toml")
    assert set(case.sources) == set(case.destinations) == {"shop", "media"}
    job = parts["Job"]["spec"]
    assert set(job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]) == HUMAN_NEEDED
    # Until Kubernetes 1.33 its schema wants a status.
    assert all("status" in on for on in job["podFailurePolicy"]["rules"][1]["onPodConditions"])
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    _takes(container["args"])
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == volumes
    assert f"{mounts['config']}/moveout.toml" in container["args"]
    user = re.search(r"^USER (\d+)$", (ROOT / "Containerfile").read_text(), re.MULTILINE)[1]
    assert pod["securityContext"]["runAsUser"] == int(user)


def _takes(words):
    """The command line takes these words."""
    command, context = command_line(), typer.Context(command_line())
    name, command, rest = command.resolve_command(context, list(words))
    assert command.make_context(name, rest)


def test_the_container_is_built_from_what_is_there_and_runs_without_root():
    text = (ROOT / "Containerfile").read_text()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        path
        for words in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
        for path in words.split()
    }
    assert copied == allowed
    assert not [path for path in copied if not (ROOT / path).exists()]
    last = text.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (\S+)$", last, re.MULTILINE)[-1] != "0"
    assert 'ENTRYPOINT ["moveout"]' in last
    assert "postgresql-client-18" in last
    assert "moveout --version | grep 'compiled code'" in text  # without headers a build goes on, and is slow
    for run in re.findall(r"^RUN (.*(?:\n .*)*)", text.replace("\\\n", " "), re.MULTILINE):
        subprocess.run(["sh", "-n", "-c", run], check=True)


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_the_wheel_works_by_the_ways_that_the_guide_names(checkout, tmp_path):
    """Packages come from the index of pip's configuration."""
    venv.create(tmp_path / "tools", with_pip=True)
    tools = tmp_path / "tools/bin"
    subprocess.run([tools / "pip", "install", "--quiet", "pipx", "uv"], check=True)
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{home}/bin:{tools}:/usr/bin:/bin",
        "HOME": str(home),
        "PIPX_HOME": f"{home}/pipx",
        "PIPX_BIN_DIR": f"{home}/bin",
        "UV_CACHE_DIR": f"{home}/uv",
        "SHELL": "/bin/bash",
    }

    def shell(text):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=checkout, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    stale = checkout / "build/lib.old/migrate/removed_since.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    printed = shell("\n".join(blocks("docs/guides/install.md", "sh")))
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert printed.count(f"moveout {version}\n") == 2
    assert not stale.exists()
    with closing(sqlite3.connect(tmp_path / "app.db")) as database, database:
        database.execute("CREATE TABLE t (a)")
        database.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(100)])
    shell("moveout init")
    assert "Sealed, complete" in shell(f"moveout export app=sqlite://{tmp_path}/app.db --to bundle")
    shell(f"moveout verify bundle && moveout restore bundle app=sqlite://{tmp_path}/new.db")
    with closing(sqlite3.connect(tmp_path / "new.db")) as database, database:
        assert database.execute("SELECT count(*) FROM t").fetchone() == (100,)

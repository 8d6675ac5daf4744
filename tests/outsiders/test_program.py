"""A suite's commands are killed at moments that meet them."""

import itertools
import os
import random
import shutil
import sqlite3
from contextlib import closing

import pytest

from scripts.outsiders.program import Killed, Program

WITHIN_SECONDS = 60.0


def first_late_then_early():
    """Return a generator whose first moment is later than any small export, and whose second one is its start."""
    for seed in itertools.count():
        chance = random.Random(seed)
        if chance.random() > 0.9 and chance.random() < 0.001:
            return random.Random(seed)
    raise AssertionError


@pytest.mark.torture
def test_a_run_that_ends_before_its_kill_is_a_missed_kill_and_the_work_begins_anew(tmp_path):
    with closing(sqlite3.connect(tmp_path / "app.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE t (a)")
    program = Program(tmp_path, dict(os.environ))
    bundle = tmp_path / "bundle"
    begun_anew = []

    def begin_anew():
        begun_anew.append(bundle.exists())
        shutil.rmtree(bundle)

    words = ["export", f"app=sqlite://{tmp_path}/app.sqlite", "--to", "bundle"]
    command = Killed(words, WITHIN_SECONDS, begin_anew)
    killed = program.run_killed(command, kills=1, chance=first_late_then_early())
    assert (killed.met, begun_anew) == (1, [True])
    assert [outcome.exit_code for outcome in killed.outcomes] == [0, 0]
    assert killed.last.report["sources"]
    assert bundle.exists()

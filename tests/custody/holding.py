"""What tests of holds on sources do: location, die anywhere, take back."""

import secrets
import subprocess

import pytest

from migrate.custody.source_holds import source_hold, undo_file
from migrate.errors import UnreachableError
from scripts.binaries import VERSITYGW, find_program

SECRET = "a-long-secret"


class Dying:
    """A hold that dies at the n-th change, before or after it is made."""

    def __init__(self, inner, left: int, *, late: bool) -> None:
        self._inner, self._left, self._late = inner, left, late

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def write(self, setting, value) -> None:
        self._left -= 1
        if self._left >= 0 or self._late:
            self._inner.write(setting, value)
        if self._left < 0:
            raise UnreachableError("killed")


def place(path, holds):
    source_hold.place(
        path, holds, source_hold.planned(path, holds, undo_file.read(path) or undo_file.new("asked"))
    )
    return source_hold.survey(holds, undo_file.read(path))


def take_back(path, holds, *, force=False):
    source_hold.take_back(path, holds, undo_file.read(path), force=force)


def read_all(one, settings):
    return {setting: one.read(setting) for setting in settings}


def killed_everywhere(path, one, *, late):
    """Hold and undo, each killed at every step, before it is done or after (``late``)."""
    steps = list(one.changes())
    before = read_all(one, [step.setting for step in steps])
    for left in range(len(steps)):
        with pytest.raises(UnreachableError):
            place(path, {"it": Dying(one, left, late=late)})
        (standing,) = source_hold.survey({"it": one}, undo_file.read(path))
        assert standing.is_held == (late and left == len(steps) - 1)
        take_back(path, {"it": one})
        assert not path.exists()
        assert all(one.same(name, one.read(name), back(steps, name)) for name in before)
    with pytest.raises(UnreachableError):
        place(path, {"it": Dying(one, 0, late=True)})
    (standing,) = place(path, {"it": one})
    assert (standing.findings, len(standing.in_force)) == ([], len(steps))
    assert place(path, {"it": one}) == [standing]
    while True:
        try:
            take_back(path, {"it": Dying(one, 0 if late else 1, late=late)})
        except UnreachableError:
            assert not source_hold.survey({"it": one}, undo_file.read(path))[0].is_held
        else:
            break
    assert not path.exists()
    assert all(one.same(name, one.read(name), back(steps, name)) for name in before)


def back(steps, name):
    return next(step.back for step in steps if step.setting == name)


def ordinary_user(versitygw) -> str:
    """Make a user of a versitygw that may nothing but what buckets' policies allow; his secret is ``SECRET``."""
    user = f"user-{secrets.token_hex(4)}"
    own = ["--access", versitygw.access_key, "--secret", versitygw.secret_key]
    made = ["create-user", "--access", user, "--secret", SECRET, "--role", "user"]
    argv = [find_program(VERSITYGW), "admin", *own, "--endpoint-url", versitygw.endpoint, *made]
    subprocess.run(argv, check=True, capture_output=True)
    return user


def allowing(user, action, resource):
    """A policy by which a user may do something."""
    statement = {"Effect": "Allow", "Principal": {"AWS": [user]}, "Action": action, "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [statement]}

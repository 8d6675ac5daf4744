"""The help: each command in a line that is whole, and examples whose options exist."""

import re
import shlex

import pytest

from migrate.cli import VERBS
from tests.cli.conftest import call

GROUPS = ("keys", "custody", "hold", "grant")


def summaries(*words):
    listed = call(*words, "--help").out.partition("\nCommands:\n")[2]
    return dict(re.findall(r"^  (\S+) +(.+)$", listed, re.MULTILINE))


@pytest.mark.parametrize("group", [(), *((name,) for name in GROUPS)])
def test_what_a_command_does_is_said_to_the_end(group):
    found = summaries(*group)
    assert found
    assert [line for line in found.values() if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("name", [name for name in VERBS if name not in GROUPS])
def test_examples_are_for_this_command_and_by_its_options(name):
    said = call(name, "--help").out
    for line in re.findall(r"^ +(moveout .*)$", said.partition("Examples:")[2], re.MULTILINE):
        program, verb, *words = shlex.split(line)
        assert (program, verb) == ("moveout", name)
        assert all(re.search(rf"(^|\s){word}\b", said) for word in words if word.startswith("-")), line


@pytest.mark.parametrize("name", ["plan", "export", "transfer", "verify", "restore", "sync", "ls", "get"])
def test_what_takes_places_and_urls_shows_how_they_are_written(name):
    assert "Examples:" in call(name, "--help").out

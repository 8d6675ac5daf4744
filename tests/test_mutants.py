"""The record of changes that tests noticed: which functions have a result for their text of today."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.mutants import record
from scripts.mutants.record import Tried, digests_of, read_record, untried, write_record
from scripts.mutants.table import Package

CODE = '''"""A module."""

import os

SIZE = 3


class Reader:
    """Reads."""

    def close(self) -> int:
        """Close it."""
        return SIZE

    @property
    def size(self) -> int:
        return 4
'''


def test_a_function_has_another_digest_when_its_text_changes() -> None:
    digests = digests_of(CODE)
    assert set(digests) == {"", "Reader.close", "Reader.size"}
    changed = digests_of(CODE.replace("return 4", "return 5"))
    assert {name for name in digests if changed[name] != digests[name]} == {"Reader.size"}
    changed = digests_of(CODE.replace("SIZE = 3", "SIZE = 4"))
    assert {name for name in digests if changed[name] != digests[name]} == {""}
    changed = digests_of(CODE.replace("    @property\n", ""))
    assert {name for name in digests if changed[name] != digests[name]} == {"Reader.size"}


def test_comments_docstrings_imports_and_lines_above_change_no_digest() -> None:
    changed = CODE.replace("import os", "import os\nimport sys").replace("Close it.", "Close it at once.")
    assert digests_of(changed.replace("return 4", "# four\n\n        return 4")) == digests_of(CODE)


def test_functions_without_a_result_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text(CODE)
    monkeypatch.setattr(record, "_RECORD", tmp_path / "record.jsonl")
    monkeypatch.setattr(record, "CHECKOUT", tmp_path)
    monkeypatch.setattr(record, "modules_of", lambda _: ["a.py"])
    record.digests_today.cache_clear()
    digests = digests_of(CODE)
    package = Package("a", ("a.py",), ())
    write_record([
        Tried("a.py", "", digests[""], 2, 1, (("SIZE = 3", "SIZE = 4"),)),
        Tried("a.py", "Reader.close", digests["Reader.close"], 2, 1, ()),
        Tried("a.py", "Reader.size", "of another text", 1, 1, ()),
        Tried("a.py", "Reader.gone", "0", 1, 1, ()),
    ])  # fmt: skip
    assert set(untried(package)) == {
        ("a.py", "Reader.close", "1 of 2 places"),
        ("a.py", "Reader.size", "changed since"),
    }
    assert ("a.py", "Reader.gone") not in read_record()


def test_of_two_lines_for_a_function_that_of_today_with_more_results_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").write_text(CODE)
    monkeypatch.setattr(record, "_RECORD", tmp_path / "record.jsonl")
    monkeypatch.setattr(record, "CHECKOUT", tmp_path)
    record.digests_today.cache_clear()
    today = digests_of(CODE)["Reader.size"]
    more, fewer = (Tried("a.py", "Reader.size", today, 9, killed, ()) for killed in (2, 1))
    old = Tried("a.py", "Reader.size", "of another text", 9, 9, ())
    for first in (more, fewer, old):
        write_record([first, *({more, fewer, old} - {first})])
        assert read_record() == {("a.py", "Reader.size"): more}

"""The table at the end of ``make bench``."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.bench import ratios


def test_the_table_says_of_each_target_whether_it_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios.note("a table", "nobody", 9)  # run alone, a benchmark notes nothing
    file = tmp_path / "ratios"
    file.touch()
    monkeypatch.setenv(ratios.FILE, str(file))
    ratios.note("a table", "pg_dump", 1.14, 1.2)
    ratios.note("a table", "connectorx", 1.8, 1.8)
    ratios.note("a bucket", "rclone", 2.5)
    assert [line.split() for line in ratios.table(ratios.noted(file)).splitlines()] == [
        ["a", "table"],
        ["pg_dump", "1.14x", "1.2", "missed", "by", "5%"],
        ["connectorx", "1.80x", "1.8", "met"],
        ["a", "bucket"],
        ["rclone", "2.50x"],
    ]

"""A run of suites is repeated, cut into slices, and continued where it ended."""

from pathlib import Path

from scripts.outsiders.__main__ import print_row
from scripts.outsiders.suite import Context, SuiteRow


def chosen(seed: int, **options: int) -> list[int]:
    return Context(Path(), None, Path(), seed, **options).choose(range(20))


def test_a_seed_decides_the_order_and_slices_divide_it():
    whole = chosen(1)
    assert sorted(whole) == list(range(20))
    assert chosen(1) == whole != chosen(2)
    assert sorted(chosen(1, slice_count=2) + chosen(1, slice_index=1, slice_count=2)) == list(range(20))


def test_a_run_goes_on_behind_the_items_to_skip():
    whole = chosen(1)
    assert chosen(1, skip=12) == whole[12:]
    assert chosen(1, slice_index=1, slice_count=2, skip=3) == whole[1::2][3:]
    assert chosen(1, skip=30) == []


def test_a_row_says_what_was_reported_and_what_was_not(capsys):
    print_row(SuiteRow("b", 3, 1, losses=["t: rows left out"], unreported=["u: 2 / 1"]))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  reported: t: rows left out",
        "  UNREPORTED: u: 2 / 1",
    ]

"""What became of the mutants: the results of all runs, and the reasons why some may survive."""

from __future__ import annotations

import json
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.mutants.mutate import Mutant
from scripts.mutants.record import Place, Tried, digests_today, keep, read_record, untried, write_record
from scripts.mutants.table import CHECKOUT, PACKAGES, Package, modules_of

KILLED = frozenset({"killed", "timeout"})
NO_CHANGE = "no change"
"""A place that cannot be changed in a way that does something."""
UNTRIED: Mapping[str, Any] = {"outcome": "untried"}
"""The result of a place that has none."""
_REASONS = CHECKOUT / "scripts" / "mutants" / "reasons.toml"


def read_results(state: Path) -> dict[Place, dict[str, Any]]:
    """Return the last result of each place."""
    path = state / "results.jsonl"
    results: dict[Place, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        result = json.loads(line)
        results[Place(**result.pop("place"))] = result
    return results


def keep_result(state: Path, place: Place, outcome: str, mutant: Mutant | None = None) -> None:
    """Append the result of a place, which later calls take into account."""
    change = {"operator": mutant.operator, "before": mutant.before, "after": mutant.after} if mutant else {}
    with (state / "results.jsonl").open("a", encoding="utf-8") as file:
        result = {"place": asdict(place), **change, "outcome": outcome}
        file.write(json.dumps(result, ensure_ascii=False) + "\n")


def record_module(module: str, places: Iterable[Place], results: Mapping[Place, Mapping[str, Any]]) -> None:
    """Write into the record what became of the functions of a module."""
    by_function: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for place in places:
        by_function[place.function].append(results.get(place, UNTRIED))
    record = read_record()
    for function, digest in digests_today(module).items():
        outcomes = Counter(result["outcome"] for result in by_function[function])
        killed = sum(outcomes[name] for name in KILLED)
        count = outcomes.total() - outcomes[NO_CHANGE]
        survived = [
            (result["before"], result["after"])
            for result in by_function[function]
            if result["outcome"] not in {*KILLED, NO_CHANGE, "untried"}
        ]
        if not count or killed or survived:
            keep(record, Tried(module, function, digest, count, killed, tuple(sorted(survived))))
    write_record(record.values())


def known_reasons() -> dict[tuple[str, str, str], str]:
    """Return by module and change why it may survive."""
    by_module = tomllib.loads(_REASONS.read_text(encoding="utf-8"))
    return {
        (module, change["before"], change["after"]): change["why"]
        for module, changes in by_module.items()
        for change in changes
    }


def print_page() -> None:
    """Print the table of the packages in Markdown, and what is left, for the text of today."""
    print("| package | functions | tried | changes | killed | survive for a reason | left | killed of all |")
    print("|---|---|---|---|---|---|---|---|")
    left = [change for package in PACKAGES for change in _print_package(package)]
    for module, before, after in left:
        print(f"\n{module}\n  {before}\n  {after}")


def _print_package(package: Package) -> list[tuple[str, str, str]]:
    """Print a line of the table, return the changes that are left."""
    record, reasons = read_record(), known_reasons()
    count: Counter[str] = Counter()
    left = []
    for module in modules_of(package):
        for function, digest in digests_today(module).items():
            count["functions"] += 1
            tried = record.get((module, function))
            if tried is None or tried.digest != digest:
                continue
            count.update(tried=int(tried.tried == tried.places), changes=tried.tried, killed=tried.killed)
            left += [(module, *change) for change in tried.survived if (module, *change) not in reasons]
    share = f"{100 * count['killed'] / count['changes']:.0f} %" if count["changes"] else "-"
    reasoned = count["changes"] - count["killed"] - len(left)
    print(
        f"| {package.name} | {count['functions']} | {count['tried']} | {count['changes']}"
        f" | {count['killed']} | {reasoned} | {len(left)} | {share} |"
    )
    return left


def print_untried() -> None:
    """Print the functions that have no result for the text of today, or not for each place."""
    for package in PACKAGES:
        for module, function, missing in untried(package):
            print(f"{package.name}\t{module}\t{function or '(outside of functions)'}\t{missing}")

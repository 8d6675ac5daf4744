"""What became of the mutants: the results of all runs, and the reasons why some may survive."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from scripts.mutants.mutate import Mutant
from scripts.mutants.table import CHECKOUT, PACKAGES, Package

_REASONS = CHECKOUT / "scripts" / "mutants" / "reasons.toml"
_Key = tuple[str, str, int, str]


def read_results(state: Path) -> dict[_Key, dict[str, Any]]:
    """Return the last result of each mutant."""
    path = state / "results.jsonl"
    results: dict[_Key, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        told = json.loads(line)
        results[told["module"], told["operator"], told["occurrence"], told["digest"]] = told
    return results


def digest_of(module: str) -> str:
    """Return what tells a module from one with other text; "" where there is none any more."""
    path = CHECKOUT / module
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""


def keep_result(state: Path, package: Package, mutant: Mutant, digest: str, outcome: str) -> None:
    """Append the result of a mutant of a module with that digest, which later calls know then."""
    told = {
        "package": package.name,
        "module": mutant.module,
        "digest": digest,
        "operator": mutant.operator,
        "occurrence": mutant.occurrence,
        "line": mutant.line,
        "before": mutant.before,
        "after": mutant.after,
        "outcome": outcome,
    }
    with (state / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(told, ensure_ascii=False) + "\n")


def known_reasons() -> dict[tuple[str, str, str], str]:
    """Return by module and change why it may survive."""
    told = tomllib.loads(_REASONS.read_text(encoding="utf-8"))
    return {
        (module, change["before"], change["after"]): change["why"]
        for module, changes in told.items()
        for change in changes
    }


def print_page(state: Path) -> None:
    """Print the table of the packages in Markdown, and what is left."""
    reasons = known_reasons()
    by_package: dict[str, Counter[str]] = {package.name: Counter() for package in PACKAGES}
    left = []
    for (module, _, _, digest), told in read_results(state).items():
        if digest != digest_of(module):
            continue
        outcome = told["outcome"]
        if outcome not in {"killed", "timeout"}:
            known = (told["module"], told["before"], told["after"]) in reasons
            outcome = "reasoned" if known else "left"
        if outcome == "left":
            left.append(told)
        by_package[told["package"]][outcome.replace("timeout", "killed")] += 1
    print("| package | mutants | killed | survive for a reason | left | killed of those without a reason |")
    print("|---|---|---|---|---|---|")
    for name, count in by_package.items():
        of_interest = count["killed"] + count["left"]
        share = f"{100 * count['killed'] / of_interest:.0f} %" if of_interest else "-"
        print(
            f"| {name} | {count.total()} | {count['killed']} | {count['reasoned']} | {count['left']} | {share} |"
        )
    for told in sorted(left, key=lambda told: (told["module"], told["line"])):
        print(f"\n{told['module']}:{told['line']} {told['operator']}\n  {told['before']}\n  {told['after']}")

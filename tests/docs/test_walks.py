"""The two walks of ARCHITECTURE.md name functions that exist, in the files that are named beside them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEP = re.compile(r"^\d+\. `([\w.]+)` in `([\w/]+\.py)`$", re.MULTILINE)
STEPS = STEP.findall((ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8"))


def functions(path: Path) -> set[str]:
    """Every function of a module; methods as ``Class.method``."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return names


def test_both_walks_are_there():
    assert len(STEPS) > 20


@pytest.mark.parametrize(("function", "file"), STEPS)
def test_each_step_exists(function, file):
    assert function in functions(ROOT / file)

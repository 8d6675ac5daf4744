"""The shape of the code: few modules in a folder, no scraps of modules, no name with many meanings.

The limits are today's figures. They may be lowered, not raised. Nothing is parsed: ``make check`` runs this, too.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter, defaultdict
from functools import cache
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("exporters", "migrate", "scripts")
MOST_MODULES = 20
MOST_MEANINGS = 2
MOST_CORE_LINES = 1499
SHORT_LINES = 60
MOST_SHORT = 5
"""Modules that are shorter than ``SHORT_LINES`` and imported by one other module only."""

STORAGE = "bucket|client|destination|inner|origin|store|_client|_inner|_store"
PROBE = re.compile(rf"""\b(?:getattr|hasattr)\(\s*(?:[\w.]+\.)?(?:{STORAGE}),\s*["']""")
"""A call of getattr or hasattr with a name, on a store, a bucket, or what wraps one."""
DATACLASS = re.compile(r"^ *(?:from|import) dataclasses\b", re.MULTILINE)
CLASS = re.compile(r"^ *class (\w+)", re.MULTILINE)
IMPORT = re.compile(r"^ *(?:from ([\w.]+) )?import (\([^)]*\)|.*)", re.MULTILINE)
NAME = re.compile(r"([\w.]+)(?: as \w+)?")
STEP = r"""(?:next_step=\s*\(?|remedy = \(?|STEP = \(?|Fix\(\s*"advice",)\s*f?"""
NEXT_STEP = re.compile(STEP + r"""(?:"[A-Z][^A-Z"][^"]*"|"[^"]*\."(?=[,)]))""")
"""What to type next, with a capital in front or a period behind: it stands behind an arrow."""
PLACEHOLDER = re.compile(r"""next_step=\s*f?["'][^\n]*moveout [a-z -]+ (?:LOCATION|DATABASE)\b""")
"""A command whose location is left to be filled in, where it could be copied and run."""
ROLE = re.compile(r"""(?:CREATE (?:ROLE|USER) |login\(\w*postgres, ["'])([a-z_]\w*)""")


@cache
def texts():
    """Every module of the product by its path below the root."""
    paths = sorted(chain.from_iterable((ROOT / room).rglob("*.py") for room in ROOMS))
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def module_of(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def importers():
    """By module, the files that import it."""
    known = {module_of(path) for path in texts()}
    by_module = defaultdict(set)
    for path, text in texts().items():
        for package, listed in IMPORT.findall(text):
            names = set(NAME.findall(listed))
            if package:
                names = {f"{package}.{name}" for name in names} & known or {package}
            for name in names & known:
                by_module[name].add(path)
    return by_module


def test_no_folder_has_many_modules():
    count = Counter(str(Path(path).parent) for path in texts())
    assert {folder: number for folder, number in count.items() if number > MOST_MODULES} == {}


def test_the_compiled_core_is_short():
    sources = list((ROOT / "exporters/_rows").glob("*.[ch]"))
    assert sources
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in sources) <= MOST_CORE_LINES


def test_few_modules_are_scraps_of_another():
    by_module = importers()
    scraps = [
        f"{path} <- {next(iter(by_module[module_of(path)]))}"
        for path, text in texts().items()
        if len(by_module[module_of(path)]) == 1
        and not path.endswith("__init__.py")
        and len(text.splitlines()) < SHORT_LINES
    ]
    assert len(scraps) <= MOST_SHORT, "\n".join(scraps)


def test_a_class_name_has_one_meaning_or_two():
    count = Counter(name for text in texts().values() for name in CLASS.findall(text))
    assert {name: number for name, number in count.items() if number > MOST_MEANINGS} == {}


def test_value_classes_are_structs():
    """They are ``msgspec.Struct``: a dataclass compiles its methods at each start. Scripts and tests may have some."""
    product = {path: text for path, text in texts().items() if not path.startswith("scripts/")}
    assert [path for path, text in product.items() if DATACLASS.search(text)] == []


def test_next_steps_are_no_sentences():
    """They are printed behind an arrow, as what one types: small, and without a period at the end."""
    assert [(path, step) for path, text in texts().items() for step in NEXT_STEP.findall(text)] == []


def test_next_steps_name_the_location():
    assert {path: step for path, text in texts().items() if (step := PLACEHOLDER.findall(text))} == {}


def test_what_a_store_can_do_is_declared():
    """Optional abilities are protocols: nothing is found out by getattr."""
    assert [(path, probe) for path, text in texts().items() for probe in PROBE.findall(text)] == []


def test_a_reason_why_a_change_may_survive_is_about_text_that_is_there():
    """Where this fails, remove the entry from scripts/mutants/reasons.toml, or write the text of today into it."""
    reasons = tomllib.loads((ROOT / "scripts/mutants/reasons.toml").read_text(encoding="utf-8"))
    lines = {path: " ".join(texts().get(path, "").split()) for path in reasons}
    assert [
        (path, e["before"]) for path in reasons for e in reasons[path] if e["before"] not in lines[path]
    ] == []


def test_a_role_of_a_test_has_a_name_of_its_own():
    """Roles belong to a server, which files share: two files whose roles have one name fail when they meet."""
    users = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in ROLE.findall(path.read_text(encoding="utf-8")):
            users[name].add(str(path.relative_to(ROOT)))
    assert {name: files for name, files in users.items() if len(files) > 1} == {}

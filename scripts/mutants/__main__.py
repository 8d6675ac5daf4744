"""``make mutants``: change modules in one place at a time, and list the changes that no test notices.

``make mutants ARGS="verify bundle --most 30"`` tries 30 changes of each module of two packages. The state lies outside
of the checkout: a later call goes on, and tries again what survived. It works in a copy of the checkout.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from scripts.mutants.mutate import Mutant, Places
from scripts.mutants.record import Place
from scripts.mutants.results import (
    KILLED,
    NO_CHANGE,
    UNTRIED,
    keep_result,
    known_reasons,
    print_page,
    print_untried,
    read_results,
    record_module,
)
from scripts.mutants.table import CHECKOUT, PACKAGES, Package, modules_of, tests_of
from scripts.mutants.traces import Traces

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "moveout" / "mutants"
_MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path("/tmp")
_STAGES_SECONDS = 3.0, 6.0, 60.0
"""How long the tests of a mutant take at most, in stages; the last one is for ``--again``."""
_QUICK_SECONDS, _SLOWEST_SECONDS = 0.5, 25.0
_HANGS_SECONDS = 8.0
"""How long a test may take that takes no time without the mutant."""
_TIMED_OUT = re.compile(r"Timeout \(>")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/\S+?\.py::.+?)(?: - .*)?$", re.MULTILINE)


class WarmTests:
    """The process that runs tests; it is started again where a mutant has broken it."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._process: subprocess.Popen[str] | None = None
        self._directory = _MEMORY / f"moveout-mutants-{os.getpid()}"

    def run(self, tests: Sequence[str], options: Sequence[str] = (), **more: Any) -> dict[str, Any]:
        """Run tests, return the answer."""
        request = {"tests": list(tests), "options": list(options), "timeout": 600.0, **more}
        for _ in range(2):
            process = self._process or self._start()
            assert process.stdin
            assert process.stdout
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if answer:
                return dict(json.loads(answer))
            self.stop()
        raise RuntimeError("the process that runs tests ends again and again")

    def stop(self) -> None:
        """End it with its servers."""
        if self._process is not None:
            assert self._process.stdin
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [self._tree / ".venv" / "bin" / "python", "-m", "scripts.mutants.warm_tests", self._directory],
            cwd=self._tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{self._tree}:{self._tree}/build/site", "TMPDIR": str(_MEMORY)},
        )
        assert self._process.stdout
        self._process.stdout.readline()
        return self._process


def copy_tree(tree: Path) -> None:
    """Bring the copy up to date with the checkout; files that are the same stay as they are."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    built = (path for name in ("exporters", "migrate") for path in (CHECKOUT / name).rglob("*.so"))
    listed += [path.relative_to(CHECKOUT).as_posix() for path in built]
    for name in filter(lambda name: (CHECKOUT / name).is_file(), listed):
        content, copy = (CHECKOUT / name).read_bytes(), tree / name
        if not copy.exists() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, copy)
    for gone in set(_tests_in(tree)) - set(listed):
        (tree / gone).unlink()
    (tree / ".venv").unlink(missing_ok=True)
    (tree / ".venv").symlink_to(CHECKOUT / ".venv")
    site = tree / "build" / "site"
    site.mkdir(parents=True, exist_ok=True)
    (site / "sitecustomize.py").write_text("from scripts.mutants.traces import begin\n\nbegin()\n")


def _tests_in(tree: Path) -> Iterator[str]:
    return (path.relative_to(tree).as_posix() for path in (tree / "tests").rglob("test_*.py"))


def trace(package: Package, runner: WarmTests, state: Path, tree: Path) -> dict[str, Any]:
    """Return by test how long it takes and which lines it reaches. A file of tests is traced once; where a module has
    changed since, its lines are found again by their text.
    """
    modules = [name for each in PACKAGES for name in modules_of(each)]
    traces = Traces(state / "traces")
    tests: dict[str, Any] = {}
    for name in tests_of(package):
        if not traces.has(name):
            traces.keep(name, modules, _trace_file(name, modules, runner, tree))
        tests.update(traces.read(name))
    return tests


def _trace_file(name: str, modules: Sequence[str], runner: WarmTests, tree: Path) -> dict[str, Any]:
    folder = tree / "build" / "lines"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    environment = {"MOVEOUT_TRACE_TO": str(folder), "MOVEOUT_TRACE_MODULES": ":".join(modules)}
    answer = runner.run([name], environment=environment)
    if answer["code"] not in {0, 1, 5}:
        raise RuntimeError(f"{name} cannot be run: {answer['code']}\n{answer['output']}")
    tests = {
        test: {**timing, "lines": {}}
        for test, timing in answer["tests"].items()
        if timing["passed"] and timing["seconds"] < _SLOWEST_SECONDS
    }
    print(f"  traced {name}: {len(tests)} tests of {len(answer['tests'])}, {answer['seconds']} s", flush=True)
    for log in folder.iterdir():
        for line in log.read_text().splitlines():
            current, module, number = line.split("\t")
            test, _, phase = current.rpartition(" (")
            for reached in (
                tests if phase == "setup)" else {test} & set(tests)
            ):  # others may use a fixture, too
                tests[reached]["lines"].setdefault(module, []).append(int(number))
    for timing in tests.values():
        timing["lines"] = {module: sorted(set(numbers)) for module, numbers in timing["lines"].items()}
    return tests


def choose(mutant: Mutant, tests: Mapping[str, Any], stage_count: int) -> list[list[str]]:
    """Return the tests that reach the changed statement in stages: the fastest of each line of its function first, then
    those named after the module and the fastest of each other file, then the second of each, until they take too long.
    """
    by_file: dict[str, list[str]] = {}
    by_line: dict[int, str] = {}
    for name in sorted(tests, key=lambda name: float(tests[name]["seconds"])):
        lines = tests[name]["lines"].get(mutant.module)
        if lines and (not mutant.lines or mutant.lines.intersection(lines)):
            by_file.setdefault(name.partition("::")[0], []).append(name)
            for line in mutant.around.intersection(lines):
                by_line.setdefault(line, name)
    first = set(by_line.values())
    stem = f"_{Path(mutant.module).stem}"
    ranked = sorted(
        (
            -1 if name in first else 0 if stem.endswith(Path(file).stem.removeprefix("test")) else rank,
            float(tests[name]["seconds"]),
            name,
        )
        for file, names in by_file.items()
        for rank, name in enumerate(names)
    )
    stages: list[list[str]] = []
    for most_seconds in _STAGES_SECONDS[:stage_count]:
        chosen: list[str] = []
        spent = 0.0
        for _, seconds, name in ranked:
            if spent + seconds <= most_seconds or not (stages or chosen):
                chosen.append(name)
                spent += seconds
        ranked = [each for each in ranked if each[2] not in chosen]
        if chosen:
            stages.append(sorted(chosen, key=lambda name: float(tests[name]["seconds"])))
    return stages


class Trials:
    """Tries mutants in the copy of the checkout."""

    def __init__(self, runner: WarmTests, tree: Path, stage_count: int) -> None:
        self._runner = runner
        self._tree = tree
        self._stage_count = stage_count
        self._failing: set[str] = set()
        """Tests that fail without any mutant."""
        self._clock = 0
        """Each text of a module gets a time of its own, else Python takes what it has compiled before."""

    def judge(self, mutant: Mutant, tests: Mapping[str, Any]) -> str:
        """Return ``killed``, ``timeout``, ``survived``, ``unreached``, or ``unclear`` where the tests fail anyway."""
        outcome = "unreached"
        for chosen in choose(mutant, tests, self._stage_count):
            outcome = self._judge(mutant, {name: float(tests[name]["seconds"]) for name in chosen})
            if outcome != "survived":
                break
        return outcome

    def _judge(self, mutant: Mutant, timings: Mapping[str, float]) -> str:
        """Run tests with a mutant. The failure of a slow one counts where it passes without the mutant, and so does one
        that hangs; others are left out from then on.
        """
        chosen, seconds = list(timings), _HANGS_SECONDS + 4 * max(timings.values())
        all_seconds = 2 * seconds + 4 * sum(
            timings.values()
        )  # threads that hang are not ended with their test
        original = (CHECKOUT / mutant.module).read_text(encoding="utf-8")
        while chosen := [name for name in chosen if name not in self._failing]:
            answer = self._run(mutant.module, mutant.code, chosen, seconds, all_seconds)
            if answer["code"] == 0:
                return "survived"
            failed = _FAILED.findall(answer["output"])
            is_quick = failed and timings.get(failed[0], math.inf) < _QUICK_SECONDS
            if is_quick and not _TIMED_OUT.search(answer["output"]):
                return "killed"
            control = self._run(mutant.module, original, failed or chosen, seconds, all_seconds)
            if control["code"] == 0:
                return "timeout" if answer["code"] == -1 else "killed"
            print(f"  a test fails without the mutant: {control['output']}", flush=True)
            self._failing.update(failed)
            if not failed:
                break
        return "unclear"

    def _run(
        self, module: str, code: str, tests: Sequence[str], seconds: float, all_seconds: float
    ) -> dict[str, Any]:
        """Run tests of at most so many seconds, each and all, with a text of a module."""
        path = self._tree / module
        original = (CHECKOUT / module).read_text(encoding="utf-8")
        self._write(path, code)
        try:
            name = module.removesuffix(".py").replace("/", ".")
            options = ["-x", f"--timeout={seconds:.0f}", "-o", "timeout_func_only=true"]
            return self._runner.run(tests, options, timeout=all_seconds, module=name)
        finally:
            self._write(path, original)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        self._clock = max(self._clock + 1, int(time.time()))
        os.utime(path, (self._clock, self._clock))


def try_module(module: str, trials: Trials, options: argparse.Namespace, tests: Mapping[str, Any]) -> None:
    """Try mutants of a module that have no result yet, those of functions with the fewest results first. Print what
    survives, and write the record.
    """
    places = Places(module, (CHECKOUT / module).read_text(encoding="utf-8"))
    results = read_results(options.state)
    outcomes_to_try = {"survived", "unreached"} if options.again else {"untried", "unclear"}
    left = [place for place in places if results.get(place, UNTRIED)["outcome"] in outcomes_to_try]
    random.Random(module).shuffle(left)
    turns: Counter[str] = Counter(place.function for place in results if place in set(places))
    left.sort(key=lambda place: turns.update([place.function]) or turns[place.function])
    mutants = (try_place(places, place, results.get(place, {}), trials, options, tests) for place in left)
    for _ in islice(filter(None, mutants), options.most):
        pass
    results = read_results(options.state)
    record_module(module, places, results)
    outcomes = Counter(results.get(place, UNTRIED)["outcome"] for place in places)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    print(f"{module}: {counts}", flush=True)


def try_place(
    places: Places,
    place: Place,
    before: Mapping[str, Any],
    trials: Trials,
    options: argparse.Namespace,
    tests: Mapping[str, Any],
) -> bool:
    """Try the mutant of a place, keep the result; return False where no change can be made."""
    mutant = places.mutant(place, before)
    if mutant is None:
        keep_result(options.state, place, NO_CHANGE)
        return False
    reasoned = (place.module, mutant.before, mutant.after) in known_reasons()
    outcome = "survived" if reasoned else trials.judge(mutant, tests)
    keep_result(options.state, place, outcome, mutant)
    if outcome not in KILLED and not reasoned:
        where = f"{place.module}:{mutant.line} {mutant.operator}"
        print(f"  {outcome}: {where}\n    {mutant.before}\n    {mutant.after}", flush=True)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    names = [package.name for package in PACKAGES]
    parser = argparse.ArgumentParser(
        prog="make mutants", description="Change code, and see whether tests notice."
    )
    parser.add_argument(
        "only", nargs="*", metavar="NAME", help=f"a package ({', '.join(names)}) or a part of a path"
    )
    parser.add_argument("--most", type=int, default=30, help="mutants of a module in this call (default: 30)")
    parser.add_argument("--again", action="store_true", help="try what survived, by more tests")
    parser.add_argument("--trace", action="store_true", help="only note which lines the tests reach")
    parser.add_argument("--page", action="store_true", help="print the table of results, try nothing")
    parser.add_argument(
        "--untried", action="store_true", help="print the functions without a result for their text of today"
    )
    parser.add_argument(
        "--state", type=Path, default=_CACHE, help=f"results, and the copy (default: {_CACHE})"
    )
    options = parser.parse_args(argv)
    if options.page or options.untried:
        print_page() if options.page else print_untried()
        return 0
    tree = options.state / "tree"
    tree.mkdir(parents=True, exist_ok=True)
    lock = (options.state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        parser.error(f"another run works in {tree}; --state names another directory")
    copy_tree(tree)
    runner = WarmTests(tree)
    trials = Trials(runner, tree, 3 if options.again else 2)
    try:
        for package in PACKAGES:
            modules = [
                module
                for module in modules_of(package)
                if not options.only or any(name == package.name or name in module for name in options.only)
            ]
            if modules:
                tests = trace(package, runner, options.state, tree)
            for module in [] if options.trace else modules:
                try_module(module, trials, options, tests)
    except KeyboardInterrupt:
        return 130
    finally:
        runner.stop()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())

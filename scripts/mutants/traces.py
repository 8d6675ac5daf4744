"""Which test reaches which line: noted by each process of the tests, and kept, since that takes twice as long as to run
them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from scripts.mutants.table import CHECKOUT

TRACE_TO = "MOVEOUT_TRACE_TO"
"""Names a folder. Each process writes a file of lines ``test<TAB>module<TAB>line`` there."""
_ROOT = str(Path(__file__).parents[2]) + "/"


def begin() -> None:
    """Note lines from now on, if ``TRACE_TO`` says where. What is noted survives a kill."""
    folder = os.environ.get(TRACE_TO)
    if not folder:
        return
    seen: set[tuple[str, str, int]] = set()
    wanted = tuple(_ROOT + name for name in os.environ["MOVEOUT_TRACE_MODULES"].split(":"))
    log = os.open(f"{folder}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note_line(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            key = os.environ.get("PYTEST_CURRENT_TEST", ""), frame.f_code.co_filename, frame.f_lineno
            if key not in seen:
                seen.add(key)
                os.write(log, "\t".join((key[0], key[1].removeprefix(_ROOT), f"{key[2]}\n")).encode())
        return note_line

    def note_call(frame: FrameType, _event: str, _argument: Any) -> Any:
        return note_line if frame.f_code.co_filename.startswith(wanted) else None

    threading.settrace(note_call)
    sys.settrace(note_call)


class Traces:
    """Those of each file of tests, with the modules as they were then."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def has(self, tests: str) -> bool:
        """Tell whether a file of tests was traced as it is now."""
        return self._path(tests).exists()

    def keep(self, tests: str, modules: Iterable[str], told: dict[str, Any]) -> None:
        """Keep what a file of tests reaches."""
        digests = {}
        for module in modules:
            text = (CHECKOUT / module).read_text(encoding="utf-8")
            digests[module] = _digest(text)
            (self._directory / f"{digests[module]}.py").write_text(text, encoding="utf-8")
        self._path(tests).write_text(json.dumps({"modules": digests, "tests": told}))

    def read(self, tests: str) -> dict[str, Any]:
        """Return what a file of tests reaches, in the lines of today."""
        kept = json.loads(self._path(tests).read_text())
        for told in kept["tests"].values():
            told["lines"] = {
                module: self._today(module, kept["modules"][module], tuple(lines))
                for module, lines in told["lines"].items()
            }
        return dict(kept["tests"])

    def _today(self, module: str, digest: str, lines: Sequence[int]) -> list[int]:
        path = CHECKOUT / module
        if not path.exists() or _digest(path.read_text(encoding="utf-8")) == digest:
            return list(lines)
        moved, new = _moved(self._directory / f"{digest}.py", path)
        return sorted({moved[line] for line in lines if line in moved} | new)

    def _path(self, tests: str) -> Path:
        return self._directory / f"{_digest((CHECKOUT / tests).read_text(encoding='utf-8'))}.json"


@cache
def _moved(before: Path, after: Path) -> tuple[dict[int, int], frozenset[int]]:
    """Return by line where it stands now, and the lines that are new: any test of the module may reach them."""
    old, new = (path.read_text(encoding="utf-8").splitlines() for path in (before, after))
    moved, new_lines = {}, set[int]()
    for kind, start, end, new_start, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            moved.update({line + 1: new_start + line - start + 1 for line in range(start, end)})
        else:
            new_lines.update(range(new_start + 1, new_end + 1))
    return moved, frozenset(new_lines)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]

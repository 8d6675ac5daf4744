"""Notes which lines of the mutated modules a process reaches, and in which test: also in the processes of a test."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

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

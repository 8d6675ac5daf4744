"""The compiled core for rows, where it was built. Everything that it does, Python and Arrow do without it, slower."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import ModuleType

PURE_VARIABLE: Final = "MOVEOUT_PURE_PYTHON"
"""The environment variable that turns the compiled core off, whatever its value, unless it is empty."""
_INTERFACE = 9
"""What ``_core.INTERFACE`` has to be: a core that was built from other sources is not used."""


def _load() -> ModuleType | None:
    if os.environ.get(PURE_VARIABLE):
        return None
    try:
        from exporters._rows import _core  # noqa: PLC0415
    except ImportError:
        return None
    return _core if _core.INTERFACE == _INTERFACE else None


core = _load()
"""The functions of ``_core.pyi``, or None."""


def row_path() -> str:
    """Return which code reads rows: ``compiled`` or ``pure Python``."""
    return "pure Python" if core is None else "compiled"

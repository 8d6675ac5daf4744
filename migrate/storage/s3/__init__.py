"""S3: a bucket and prefix as a location, buckets as sources and destinations.

Modules here import botocore, which takes awscrt along where it is installed, for 40 ms. What botocore needs it for is a
login by ``aws login``, a signature for several regions, and checksums of bodies. Regions are several for access points
only, whose names are no buckets' names, and bodies go by ``http/``. So it is hidden, unless a profile has such a login.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from migrate.storage import checksums

_AWSCRT = "awscrt"
_LOGIN = b"login_session"
"""The setting that ``aws login`` writes into a profile."""
_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}


def _has_login(path: Path) -> bool:
    try:
        return _LOGIN in path.expanduser().read_bytes()
    except (OSError, RuntimeError):  # the latter: there is no home
        return False


def _needs_awscrt() -> bool:
    """Tell whether awscrt is loaded anyway, or some profile needs it."""
    if checksums.library().__name__.startswith(_AWSCRT):
        return True
    return any(_has_login(Path(os.environ.get(name) or usual)) for name, usual in _FILES.items())


@contextmanager
def _without_awscrt() -> Iterator[None]:
    """Let awscrt look as if it were not installed, until the context is left."""
    modules: dict[str, Any] = sys.modules
    modules[_AWSCRT] = None  # Python's reference, "The module cache": then it is a ModuleNotFoundError
    try:
        yield
    finally:
        del modules[_AWSCRT]


if _AWSCRT not in sys.modules and not _needs_awscrt():
    with _without_awscrt():
        importlib.import_module("botocore.compat")  # it looks for awscrt, once

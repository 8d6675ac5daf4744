"""Which engine a URL means: the only place that has all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pkgutil import resolve_name

from exporters.engine import ENTRY_POINTS, Engine
from migrate.errors import UsageError

_OWN = ("mysql", "postgres", "s3", "sqlite")
"""The modules next to this one with an engine of moveout's own. They are entry points, too; to look for those takes
15 ms.
"""


def find(url: str) -> Engine | None:
    """Return the engine of a URL, or of a scheme alone (a source's ``kind`` in a bundle); None where there is none."""
    scheme = url.partition(":")[0].lower()
    return _own().get(scheme) or _by_scheme().get(scheme)


def engine_for(url: str, shown: str) -> Engine:
    """Return the engine of a URL. Raises ``UsageError`` that lists the schemes there are; ``shown`` is the URL without
    secrets.
    """
    engine = find(url)
    if engine is not None and "://" in url:
        return engine
    what = f"{url.partition('://')[0]}://" if "://" in url else repr(shown)
    broken = "".join(f"; the engine {name} cannot be loaded: {why}" for name, why in _installed()[1].items())
    raise UsageError(
        f"{what} is not a database or bucket that moveout supports{broken}",
        next_step=_similar_scheme(url) or f"give a URL that begins with {known_schemes()}",
    )


def _similar_scheme(url: str) -> str:
    """Ask whether a scheme was meant that looks like that of a URL; "" where none does."""
    from difflib import get_close_matches  # noqa: PLC0415  few schemes are misspelt

    scheme, mark, _ = url.partition("://")
    known = [scheme for engine in engines() for scheme in engine.schemes]
    close = get_close_matches(scheme.lower(), known, n=1) if mark else []
    return f"did you mean {close[0]}://?" if close else ""


def holds_objects(url: str) -> bool:
    """Tell whether a URL, or its scheme alone, is of an engine whose sources hold objects, not tables."""
    engine = find(url)
    return engine is not None and engine.contents == "objects"


def require(engine: Engine, reference: str, done: str) -> str:
    """Return a part's reference. Raises ``UsageError`` where the engine lacks it: its sources cannot be ``done``."""
    if not reference:
        raise UsageError(
            f"moveout's engine for {engine.name} has no part by which {engine.schemes[0]}:// sources are {done}",
            next_step="docs/guides/add-an-engine.md says what an engine may bring",
        )
    return reference


def known_schemes() -> str:
    """Return all schemes, for people."""
    return ", ".join(f"{scheme}://" for engine in engines() for scheme in engine.schemes)


def secret_names() -> tuple[str, ...]:
    """Return the names of secrets that engines know."""
    return tuple(dict.fromkeys(name for engine in engines() for name in engine.secrets))


def secret_variables() -> tuple[str, ...]:
    """Return the environment variables in which engines look for secrets."""
    return tuple(dict.fromkeys(name for engine in engines() for name in engine.secret_variables))


def engines() -> Sequence[Engine]:
    """Return all engines that can be loaded."""
    return _installed()[0]


def reload() -> None:
    """Look for installed engines again."""
    _by_scheme.cache_clear()
    _installed.cache_clear()


@cache
def _own() -> Mapping[str, Engine]:
    engines_of_moveout: list[Engine] = [resolve_name(f"{__package__}.{name}:ENGINE") for name in _OWN]
    return {scheme: engine for engine in engines_of_moveout for scheme in engine.schemes}


@cache
def _by_scheme() -> Mapping[str, Engine]:
    return {scheme: engine for engine in engines() for scheme in engine.schemes}


@cache
def _installed() -> tuple[Sequence[Engine], Mapping[str, str]]:
    """Return the engines in the order of their entry points' names, and why others cannot be loaded."""
    from importlib.metadata import entry_points  # noqa: PLC0415  a tenth of a start, and not every command asks

    loaded: list[Engine] = []
    broken: dict[str, str] = {}
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        try:
            engine = entry.load()
        except Exception as exc:  # an engine of somebody else's package: the other engines still work
            broken[entry.name] = f"{type(exc).__name__}: {exc}"
            continue
        if not isinstance(engine, Engine):
            broken[entry.name] = f"{entry.value} is no exporters.engine.Engine"
        elif taken := [other.name for other in loaded if {*other.schemes} & {*engine.schemes}]:
            broken[entry.name] = f"its scheme is that of {taken[0]}"
        else:
            loaded.append(engine)
    return loaded, broken

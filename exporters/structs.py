"""What the value classes share. They are ``msgspec.Struct``, because a dataclass compiles its methods at each start."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct


class WithSecrets(Struct, frozen=True):
    """A value whose fields named in ``SECRETS`` appear in no ``repr`` and no traceback."""

    SECRETS: ClassVar[frozenset[str]] = frozenset()

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in self.SECRETS]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"


def as_dict(value: Struct) -> dict[str, Any]:
    """Return the fields by name, in their order. Structs in them, in lists, tuples and dicts, too, become dicts."""
    return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return as_dict(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(content) for key, content in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        items = map(_plain, value)
        return value._make(items) if hasattr(value, "_make") else tuple(items)
    return value

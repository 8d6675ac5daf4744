"""Arrow's functions, by the names and with the arguments of ``pyarrow.compute``. That module wraps all 286 of them when
it is imported, which takes 22 ms. Those that exports, syncs, verification and restores often call go to Arrow without
it. Any other imports it, and so do methods: where small commands come by, it is ``cast(array, type)``, not
``array.cast(type)``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pyarrow as pa
from pyarrow import _compute
from pyarrow._compute import call_function, get_function

_OPTIONS: dict[str, Any] = {
    **dict.fromkeys(
        ("abs", "add", "add_checked", "and_", "and_not", "binary_join", "binary_length", "bit_wise_or")
    ),
    **dict.fromkeys(
        ("coalesce", "divide", "equal", "greater_equal", "if_else", "invert", "is_nan", "is_valid")
    ),
    **dict.fromkeys(("less", "less_equal", "list_element", "list_flatten", "list_value_length", "multiply")),
    **dict.fromkeys(("multiply_checked", "negate", "not_equal", "or_", "replace_with_mask", "shift_left")),
    **dict.fromkeys(("subtract", "unique")),
    **dict.fromkeys(("all", "any", "max", "min_max", "sum"), _compute.ScalarAggregateOptions),
    **dict.fromkeys(("ascii_ltrim", "ascii_rtrim"), _compute.TrimOptions),
    **dict.fromkeys(
        ("ends_with", "find_substring", "match_substring", "match_substring_regex", "starts_with"),
        _compute.MatchSubstringOptions,
    ),
    **dict.fromkeys(("replace_substring", "replace_substring_regex"), _compute.ReplaceSubstringOptions),
    **dict.fromkeys(("utf8_lpad", "utf8_rpad"), _compute.PadOptions),
    "binary_join_element_wise": _compute.JoinOptions,
    "count_distinct": _compute.CountOptions,
    "cumulative_sum": _compute.CumulativeOptions,
    "dictionary_encode": _compute.DictionaryEncodeOptions,
    "extract_regex": _compute.ExtractRegexOptions,
    "filter": _compute.FilterOptions,
    "is_in": _compute.SetLookupOptions,
    "is_null": _compute.NullOptions,
    "sort_indices": _compute.SortOptions,
    "split_pattern": _compute.SplitPatternOptions,
    "struct_field": _compute.StructFieldOptions,
    "take": _compute.TakeOptions,
    "utf8_slice_codeunits": _compute.SliceOptions,
}
"""Functions that need no import, with the class of their options, None where they have none."""


def __getattr__(name: str) -> Any:
    """Return a function of ``pyarrow.compute``, and keep it here."""
    function = globals()[name] = (
        _direct(name) if name in _OPTIONS else getattr(import_module("pyarrow.compute"), name)
    )
    return function


def _direct(name: str) -> Any:
    """Return a function that calls Arrow's."""
    function, options_class = get_function(name.rstrip("_")), _OPTIONS[name]
    operand_count = None if function.arity is Ellipsis else function.arity

    def call(*arguments: Any, **options: Any) -> Any:
        operands = arguments[:operand_count]
        given = arguments[len(operands) :]
        return function.call(operands, options_class(*given, **options) if given or options else None)

    return call


def cast(values: Any, to: pa.DataType) -> Any:
    """Return the values as another type. Raises ``pyarrow.ArrowInvalid`` where one does not fit."""
    return call_function("cast", [values], _compute.CastOptions.safe(to))


def fill_null(values: Any, fill_value: Any) -> Any:
    """Return the values, with ``fill_value`` for NULL."""
    value = fill_value.as_py() if isinstance(fill_value, pa.Scalar) else fill_value
    return call_function("coalesce", [values, pa.scalar(value, type=values.type)])

"""Arrow's functions without ``pyarrow.compute``, against those with it."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from exporters import arrow_functions

TEXTS = pa.array(["aE", None, "", 'b"10.500'])
NUMBERS = pa.array([3, None, 0, 2])
FLAGS = pa.array([True, None, False, True])
LISTS = pa.array([["x", "y"], None, [], [None]])
CALLS = {
    "abs": [(pa.array([-3, None, 2]),)],
    "add": [(NUMBERS, 2)],
    "add_checked": [(NUMBERS, NUMBERS)],
    "all": [(FLAGS,), (FLAGS, {"skip_nulls": False})],
    "and_": [(FLAGS, pa.array([True, True, False, False]))],
    "and_not": [(FLAGS, pa.array([True, True, False, False]))],
    "any": [(FLAGS,), (pa.array([], pa.bool_()), {"min_count": 0})],
    "ascii_ltrim": [(TEXTS, "a"), (TEXTS, {"characters": "b"})],
    "ascii_rtrim": [(TEXTS, {"characters": "0"})],
    "binary_join": [(LISTS, ",")],
    "binary_join_element_wise": [
        (TEXTS, "x", ""),
        (TEXTS, TEXTS, ",", {"null_handling": "replace", "null_replacement": "-"}),
    ],
    "binary_length": [(TEXTS,)],
    "bit_wise_or": [(NUMBERS, 4)],
    "cast": [(NUMBERS, pa.string()), (pa.chunked_array([NUMBERS]), pa.int8())],
    "coalesce": [(TEXTS, "none"), (TEXTS, pa.scalar("none"))],
    "count_distinct": [(TEXTS,)],
    "cumulative_sum": [(pa.array([1, 2, 3]),)],
    "dictionary_encode": [(TEXTS,), (TEXTS, {"null_encoding": "encode"})],
    "divide": [(NUMBERS, 2)],
    "ends_with": [(TEXTS, "E"), (TEXTS, {"pattern": "0"})],
    "equal": [(TEXTS, ""), (NUMBERS, NUMBERS)],
    "extract_regex": [(TEXTS, "(?P<first>[a-z])"), (TEXTS, {"pattern": "(?P<digits>[0-9]+)"})],
    "fill_null": [(TEXTS, "none"), (NUMBERS, pa.scalar(1, pa.int8())), (FLAGS, {"fill_value": False})],
    "filter": [(TEXTS, FLAGS), (pa.table({"x": TEXTS}), FLAGS)],
    "find_substring": [(TEXTS, "E")],
    "greater_equal": [(NUMBERS, 2)],
    "if_else": [(FLAGS, "t", "f"), (FLAGS, TEXTS, pa.scalar(None, pa.string()))],
    "invert": [(FLAGS,)],
    "is_in": [
        (TEXTS, pa.array(["", "aE"])),
        (NUMBERS, {"value_set": pa.array([0, None]), "skip_nulls": True}),
    ],
    "is_nan": [(pa.array([1.5, None, float("nan")]),)],
    "is_null": [(TEXTS,), (pa.array([1.5, None, float("nan")]), {"nan_is_null": True})],
    "is_valid": [(TEXTS,)],
    "less": [(NUMBERS, 2)],
    "less_equal": [(NUMBERS, 2)],
    "list_element": [(pa.array([["x", "y"], None, [None]]), 0)],
    "list_flatten": [(LISTS,)],
    "list_value_length": [(LISTS,)],
    "match_substring": [(TEXTS, "E"), (TEXTS, {"pattern": "e", "ignore_case": True})],
    "match_substring_regex": [(TEXTS, "^a"), (TEXTS, {"pattern": "^A", "ignore_case": True})],
    "max": [(NUMBERS,)],
    "min_max": [(NUMBERS,)],
    "multiply": [(NUMBERS, 7)],
    "multiply_checked": [(NUMBERS, 7)],
    "negate": [(NUMBERS,)],
    "not_equal": [(TEXTS, ""), (NUMBERS, NUMBERS)],
    "or_": [(FLAGS, pa.array([True, True, False, False]))],
    "replace_substring": [(TEXTS, {"pattern": '"', "replacement": '""'})],
    "replace_substring_regex": [(TEXTS, {"pattern": "[0-9]+", "replacement": "-"})],
    "replace_with_mask": [(TEXTS, pa.array([True, False, True, False]), pa.array(["p", "q"]))],
    "shift_left": [(NUMBERS, 3)],
    "sort_indices": [(pa.table({"x": NUMBERS}), {"sort_keys": [("x", "ascending")]})],
    "split_pattern": [(TEXTS, "."), (TEXTS, {"pattern": ".", "max_splits": 0})],
    "starts_with": [(TEXTS, "a"), (TEXTS, {"pattern": "A", "ignore_case": True})],
    "struct_field": [(pa.array([{"x": 1}, None]), "x"), (pa.array([{"x": 1}, None]), {"indices": [0]})],
    "subtract": [(NUMBERS, 1)],
    "sum": [(NUMBERS,), (NUMBERS, {"skip_nulls": False})],
    "take": [(TEXTS, pa.array([3, 0])), (TEXTS, pa.array([1]), {"boundscheck": False})],
    "unique": [(FLAGS,), (pa.chunked_array([FLAGS, FLAGS]),)],
    "utf8_lpad": [(TEXTS, 4), (TEXTS, {"width": 4, "padding": "0"})],
    "utf8_rpad": [(TEXTS, 4), (TEXTS, {"width": 4, "padding": "0"})],
    "utf8_slice_codeunits": [(TEXTS, 1), (TEXTS, {"start": 0, "stop": 2})],
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_function_returns_what_that_of_pyarrow_compute_returns(name):
    for call in CALLS[name]:
        operands = [each for each in call if not isinstance(each, dict)]
        options = call[-1] if isinstance(call[-1], dict) else {}
        result = getattr(arrow_functions, name)(*operands, **options)
        assert result.equals(getattr(pc, name)(*operands, **options)), call


def test_each_function_that_goes_without_it_is_compared():
    assert set(CALLS) == {*arrow_functions._OPTIONS, "cast", "fill_null"}
    assert arrow_functions.ascii_upper(TEXTS).equals(pc.ascii_upper(TEXTS))
    with pytest.raises(pa.ArrowInvalid):
        arrow_functions.cast(pa.array(["x"]), pa.int64())

"""Texts of decimals, as servers write them, for random tests."""

from hypothesis import strategies as st


def decimals(precision: int, scale: int) -> st.SearchStrategy[str]:
    limit = 10**precision - 1

    def text(number: int) -> str:
        digits = f"{abs(number):0{scale + 1}d}"
        point = len(digits) - scale
        return "-" * (number < 0) + digits[:point] + (f".{digits[point:]}" if scale else "")

    return st.integers(-limit, limit).map(text)

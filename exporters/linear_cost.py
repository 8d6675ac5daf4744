"""A linear model of time: so many seconds for the start, for each table, each item and each byte."""

from __future__ import annotations

from collections.abc import Sequence

_ROUNDS = 1000


def fit(
    rows: Sequence[Sequence[float]], seconds: Sequence[float], explained: Sequence[float] | None = None
) -> list[float]:
    """Return the coefficients, none below 0, that explain ``seconds`` by the features in ``rows``. ``explained``: the
    part of the seconds that needs no explanation.

    The squares of relative errors are minimized, so a short run counts as much as a long one. The method is
    non-negative least squares by coordinate descent (Franc, Hlavac, Navara 2005). The problems are small.
    """
    scaled = [[value / max(second, 1e-6) for value in row] for row, second in zip(rows, seconds, strict=True)]
    columns = list(zip(*scaled, strict=True))
    products = [[sum(map(_multiply, left, right)) for right in columns] for left in columns]
    rest = [
        1.0 - known / max(second, 1e-6)
        for known, second in zip(explained or [0.0] * len(rows), seconds, strict=True)
    ]
    sums = [sum(map(_multiply, column, rest)) for column in columns]
    coefficients = [0.0] * len(columns)
    for _ in range(_ROUNDS):
        for number, row in enumerate(products):
            if row[number]:
                slope = sums[number] - sum(map(_multiply, row, coefficients))
                coefficients[number] = max(0.0, coefficients[number] + slope / row[number])
    return coefficients


def _multiply(left: float, right: float) -> float:
    return left * right

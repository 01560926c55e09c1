"""Records of a run as series over its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nas.errors import InvalidFileError

Record = dict[str, Any]


class Series(NamedTuple):
    """A value over the steps; not-a-number if the value was not finite."""

    steps: list[int]
    values: list[float]

    @property
    def has_value(self) -> bool:
        """Whether any value was finite."""
        return any(value == value for value in self.values)

    @property
    def least(self) -> int:
        """Position of the least value; any position if no value is finite."""
        return min(range(len(self.values)), key=lambda i: (math.isnan(self.values[i]), self.values[i]))


class Mixing(NamedTuple):
    """Mixing weights of one decision: `weights[i]` has one weight in [0, 1] per candidate at step `steps[i]`."""

    candidates: list[str]
    steps: list[int]
    weights: list[list[float]]


def mixing(records: Iterable[Record]) -> dict[str, Mixing]:
    """Return the mixing weights by label, from records of kind `decisions` and `mixing`.

    Raises:
        InvalidFileError: the number of weights differs from the number of candidates.
    """
    found: dict[str, Mixing] = {}
    for record in records:
        if record.get("kind") == "decisions":
            for label, names in record["decisions"].items():
                found[label] = Mixing([str(name) for name in names], [], [])
        elif record.get("kind") == "mixing":
            for label, weights in record["weights"].items():
                names = found[label].candidates if label in found else []
                if len(weights) != len(names):
                    raise InvalidFileError(
                        f"metrics: step {record['step']}: '{label}' must have one mixing weight for each candidate"
                        f" ({', '.join(names) or 'none recorded'}), got {len(weights)}"
                    )
                found[label].steps.append(record["step"])
                found[label].weights.append([_number(weight) for weight in weights])
    return {label: mixing for label, mixing in found.items() if mixing.steps}


def scalars(records: Iterable[Record], kind: str) -> dict[str, Series]:
    """Return all numbers in the records of one kind by name, or `LEVEL/NAME` and `OBSERVER/NAME`."""
    found: dict[str, Series] = {}
    for record in records:
        if record.get("kind") != kind:
            continue
        source = record.get("level") or record.get("observer")
        prefix = f"{source}/" if source else ""
        for name, value in record.items():
            if name not in ("step", "kind", "level", "observer") and isinstance(value, int | float | None):
                series = found.setdefault(prefix + name, Series([], []))
                series.steps.append(record["step"])
                series.values.append(_number(value))
    return found


def losses(records: Iterable[Record]) -> dict[str, Series]:
    """Return the training loss of each level."""
    series = scalars(records, "train")
    return {name.removesuffix("/loss"): values for name, values in series.items() if name.endswith("/loss")}


def running_mean(series: Series, reach: int | None = None) -> Series:
    """Return the mean of the finite values in a moving window.

    Args:
        series: the series.
        reach: values on each side of a position; by default a fortieth of all values.
    """
    reach = max(1, len(series.values) // 40) if reach is None else reach
    values = np.asarray(series.values, dtype=float)
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    place = np.arange(len(values))
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(values))
    with np.errstate(invalid="ignore"):
        means: np.ndarray = (sums[high] - sums[low]) / (counts[high] - counts[low])
    return Series(series.steps, means.tolist())


def thinned(length: int, most: int) -> Sequence[int]:
    """Return at most `most` evenly spaced positions of `length` items, including the first and the last."""
    picked: list[int] = np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int)).tolist()
    return picked


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)

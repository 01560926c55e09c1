"""The records of a run as series over its steps, for plots, reports and TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nas.errors import InvalidFileError

Record = dict[str, Any]


class Series(NamedTuple):
    """A value over the steps; not-a-number where the value was not finite."""

    steps: list[int]
    values: list[float]

    @property
    def least(self) -> int:
        """The position of the least value; of any where none is finite."""
        return min(range(len(self.values)), key=lambda i: (math.isnan(self.values[i]), self.values[i]))


class Mixing(NamedTuple):
    """The mixing weights of one decision over the steps: `weights[i]` holds one per candidate, in [0, 1]."""

    candidates: list[str]
    steps: list[int]
    weights: list[list[float]]


def mixing(records: Iterable[Record]) -> dict[str, Mixing]:
    """The mixing weights by label, from records of kind `decisions` and `mixing`; raises `InvalidFileError`."""
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
                        f"metrics: '{label}' has {len(weights)} mixing weights at step {record['step']},"
                        f" expected one for each of its candidates ({', '.join(names) or 'none recorded'})"
                    )
                found[label].steps.append(record["step"])
                found[label].weights.append([_number(weight) for weight in weights])
    return {label: mixing for label, mixing in found.items() if mixing.steps}


def scalars(records: Iterable[Record], kind: str) -> dict[str, Series]:
    """Every number in the records of one kind by name, those of a level as `LEVEL/NAME`."""
    found: dict[str, Series] = {}
    for record in records:
        if record.get("kind") != kind:
            continue
        prefix = f"{record['level']}/" if "level" in record else ""
        for name, value in record.items():
            if name not in ("step", "kind", "level") and isinstance(value, int | float | None):
                series = found.setdefault(prefix + name, Series([], []))
                series.steps.append(record["step"])
                series.values.append(_number(value))
    return found


def losses(records: Iterable[Record]) -> dict[str, Series]:
    """The training loss of each level, by its name."""
    series = scalars(records, "train")
    return {name.removesuffix("/loss"): values for name, values in series.items() if name.endswith("/loss")}


def running_mean(series: Series, reach: int | None = None) -> Series:
    """The mean of the finite values at most `reach` places away; by default of a twentieth of all."""
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
    """The positions of at most `most` of so many items, evenly, the first and the last among them."""
    picked: list[int] = np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int)).tolist()
    return picked


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)

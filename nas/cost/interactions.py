"""How sizes that are chosen together change the cost of each part of a network, from as few counts as possible."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from nas.errors import ConfigError

Part = TypeVar("Part", bound=Hashable)
Sizes = Mapping[str, int]
"""A size by label."""

Changes = dict[tuple[str, ...], Tensor]
"""By one label, what each size adds, shape `(sizes,)`; by two, what each pair of sizes adds, `(sizes, sizes)`."""

DRAWN = 2
"""How many random sizes check the result."""


def changes(
    count: Callable[[Sizes], Mapping[Part, float]], sizes: Mapping[str, Sequence[int]]
) -> tuple[Mapping[Part, float], dict[Part, Changes]]:
    """Return the cost of every part at the largest sizes, and what other sizes add, by the labels that it depends on.

    A part depends on a label if the smallest size of this label changes the cost of the part. The cost must be a sum of
    what single labels and pairs of labels add. That of a layer is: it multiplies its channels in and out. One count
    covers all parts that depend on different labels.

    Args:
        count: the cost of every part at the given sizes of all labels; a part that does not exist costs nothing.
        sizes: the sizes of each label.

    Raises:
        ConfigError: the cost of a part is no such sum, at the smallest sizes or at random ones.
    """
    largest = {label: max(values) for label, values in sizes.items()}
    smallest = {label: min(values) for label, values in sizes.items()}
    counts: dict[tuple[int, ...], Mapping[Part, float]] = {}

    def counted(given: Sizes) -> Mapping[Part, float]:
        key = tuple(given[label] for label in sizes)
        if key not in counts:
            counts[key] = count(given)
        return counts[key]

    whole = counted(largest)
    depends: dict[Part, tuple[str, ...]] = {}
    for label in sizes:
        narrow = counted({**largest, label: smallest[label]})
        for part in {**whole, **narrow}:
            if narrow.get(part, 0.0) != whole.get(part, 0.0):
                depends[part] = (*depends.get(part, ()), label)
    cases = dict.fromkeys(case for labels in depends.values() for case in _cases(labels, sizes, largest))
    known: dict[_Case, Mapping[Part, float]] = {}
    while cases:
        given: dict[str, int] = {}
        for case in cases:
            if all(given.get(label, size) == size for label, size in case):
                given.update(case)
        given = {**largest, **given}
        found = counted(given)
        for case in [case for case in cases if given.items() >= set(case)]:
            known[case] = found
            del cases[case]
    added: dict[Part, Changes] = {}
    for part, labels in depends.items():
        costs = {case: known[case].get(part, 0.0) for case in _cases(labels, sizes, largest)}
        added[part] = _changes(costs, labels, sizes, largest)
    draw = random.Random(0)
    drawn = [{label: draw.choice(values) for label, values in sizes.items()} for _ in range(DRAWN)]
    for given in (smallest, *drawn):
        found = counted(given)
        for part in {**whole, **found}:
            if found.get(part, 0.0) != whole.get(part, 0.0) + change(added.get(part, {}), given, sizes):
                listed = ", ".join(f"'{label}'" for label in depends.get(part, sizes))
                raise ConfigError(
                    f"the cost of {part} must be a sum over pairs of widths, got a product of {listed}."
                    " Split it into modules that depend on at most two widths each"
                )
    return whole, added


def change(added: Changes, given: Sizes, sizes: Mapping[str, Sequence[int]]) -> float:
    """Return what the given sizes add in total."""
    return sum(
        table[tuple(list(sizes[label]).index(given[label]) for label in labels)].item()
        for labels, table in added.items()
    )


_Case = tuple[tuple[str, int], ...]
"""Sizes of the labels that a part depends on."""


def _cases(labels: Sequence[str], sizes: Mapping[str, Sequence[int]], largest: Sizes) -> Iterator[_Case]:
    """All sizes of labels at which at most two of them are not the largest."""
    for pair in itertools.combinations(labels, min(2, len(labels))):
        for chosen in itertools.product(*(sizes[label] for label in pair)):
            yield _case(labels, {**largest, **dict(zip(pair, chosen, strict=True))})


def _case(labels: Sequence[str], given: Sizes) -> _Case:
    return tuple((label, given[label]) for label in labels)


def _changes(
    costs: Mapping[_Case, float], labels: Sequence[str], sizes: Mapping[str, Sequence[int]], largest: Sizes
) -> Changes:
    """What labels and pairs of them add to the cost of one part."""

    def cost(given: Sizes) -> float:
        return costs[_case(labels, {**largest, **given})]

    base = cost({})
    single = {label: [cost({label: size}) - base for size in sizes[label]] for label in labels}
    found: Changes = {(label,): torch.tensor(values, dtype=torch.double) for label, values in single.items()}
    for a, b in itertools.combinations(labels, 2):
        both = [[cost({a: i, b: j}) - base for j in sizes[b]] for i in sizes[a]]
        table = torch.tensor(both, dtype=torch.double) - found[a,][:, None] - found[b,]
        if table.any():
            found[a, b] = table
    return found

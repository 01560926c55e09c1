"""Compare hypergradient methods on a search: error against the exact unroll, forward passes, time and memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nas.cost.meter import Footprint, footprint
from nas.declarations import SAME_CANDIDATES, Declaration, Part, require_composed
from nas.errors import ConfigError, UnknownNameError
from nas.hypergradient.methods import create_response
from nas.kernels.torch_internals import tree_map_only
from nas.multilevel.multilevel import Multilevel
from nas.run.config import Config
from nas.run.searching import build_levels, build_supernet

Method = Mapping[str, Any]
"""A method as a configuration names it: `{name: neumann, terms: 5}`."""


@dataclass(frozen=True)
class Accuracy:
    """One method against the exact unroll; a cosine is not a number if either vector is zero."""

    cosine: float
    """Of the whole gradient with that of the reference."""
    error: float
    """Norm of the difference of the whole gradients, over that of the reference."""
    response_cosine: float
    """Cosine of the parts that the response adds to the first-order gradient."""
    response_error: float
    """Norm of the difference of these parts, over that of the reference."""


@dataclass(frozen=True)
class Taken:
    """What one gradient takes."""

    forwards: int
    """Forward passes of the supernet, of all levels together."""
    footprint: Footprint


class Comparison:
    """The gradient of one level at one search step, by any method for the response of a level below.

    Args:
        levels: of the search; they do not change.
        level: the level whose gradient is compared; by default the highest.
        below: the level that responds; by default the lowest. Others respond as configured.
        k: the search step.
        steps: steps of the exact unroll that is the reference.
        seed: of the dropout masks, which are the same for every method.

    Raises:
        UnknownNameError: no such level.
        ConfigError: no level is below, or the relaxation has no responses.
    """

    def __init__(
        self,
        levels: Multilevel,
        level: str | None = None,
        below: str | None = None,
        *,
        k: int = 0,
        steps: int = 1,
        seed: int = 0,
    ) -> None:
        names = list(levels.levels)
        self.level = _known("level", level, names, names[-1])
        lower = names[: names.index(self.level)]
        if not lower:
            raise ConfigError(f"level '{self.level}' has no level below it, so its gradient is no hypergradient")
        self.below = _known(f"level below '{self.level}'", below, lower, lower[0])
        self.reference: Method = {"name": "unrolled", "steps": steps}
        response = Part(f"response of '{self.below}'", Declaration(needs=frozenset({SAME_CANDIDATES})))
        if levels.parts:  # of a supernet
            require_composed([*levels.parts, response])
        self._levels, self._k, self._seed = levels, k, seed
        self._first_order = self._gradient({"name": "first_order"})
        self._exact = self._gradient(self.reference)

    def accuracy(self, method: Method) -> Accuracy:
        """Compare a method with the reference; raises what the method raises if it cannot work here."""
        found = self._gradient(method)
        added, exact = found - self._first_order, self._exact - self._first_order
        return Accuracy(
            _cosine(found, self._exact), _error(found, self._exact), _cosine(added, exact), _error(added, exact)
        )

    def taken(self, method: Method) -> Taken:
        """Measure a method; raises as `accuracy` does."""
        model = self._levels.model
        forwards: list[object] = []
        hook = model.register_forward_pre_hook(lambda *_: forwards.append(None))
        try:
            taken = footprint(lambda: self._gradient(method), [*model.parameters(), *model.buffers()])
        finally:
            hook.remove()
        return Taken(len(forwards) // 2, taken)  # a footprint is taken by two calls

    def _gradient(self, method: Method) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            gradients = self._levels.gradient(self.level, self._k, {self.below: create_response(method, "method")})[1]
        return torch.cat([gradient.flatten() for gradient in gradients.values()])


def prepare(config: Config, *, after: int = 0, double: bool = False) -> Multilevel:
    """Return the levels of a search after some of its steps; with `double` everything is float64."""
    task = config.build_task()
    supernet = build_supernet(config)
    batch: Callable[[str, int], Any] = task.batch
    if double:
        supernet.double()

        def batch(split: str, index: int) -> Any:
            return tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, task.batch(split, index))

    levels = build_levels(config, supernet, task, batch)
    for _ in itertools.islice(stepping(levels, config.seed), after):
        pass
    return levels


def stepping(levels: Multilevel, seed: int) -> Iterator[int]:
    """Take the steps of a search one by one; yields the number of steps done after each."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for k in range(levels.steps):
            levels.step(k)
            yield k + 1


def _known(kind: str, name: str | None, known: list[str], default: str) -> str:
    if name is not None and name not in known:
        raise UnknownNameError(kind, name, known)
    return default if name is None else name


def _cosine(x: Tensor, y: Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


def _error(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())

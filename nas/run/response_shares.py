"""How much each lower level's response adds to an upper gradient, and whether a method agrees with the exact response.

The reference is the exact unroll of the lower level's own optimizer on the batches of its next steps. One step says
little, because a response grows with the steps that a level is given. Therefore their number is doubled until the
response changes by less than a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas.errors import UnknownNameError
from nas.genotype.file import Genotype
from nas.hypergradient.methods import create_response, name_of
from nas.hypergradient.response import Parameters, Response
from nas.hypergradient.unrolled import Unrolled
from nas.multilevel.multilevel import Multilevel
from nas.registry import Count
from nas.run.observer import Observer

SETTLED = 0.1
"""Relative change of the reference from one number of steps to its double below which it counts as settled."""


class Share(NamedTuple):
    """What the response `r(a)` of one lower level adds to the gradient of the upper loss, `F_r dr/da`.

    Regularizers do not count.
    """

    level: str
    """The level that responds; all others stay fixed."""
    method: str
    share: float
    """Norm of what the method adds, over that of the first-order gradient `F_a`."""
    reference: float
    """The same of the reference; not a number without one."""
    steps: int
    """Steps of the reference."""
    change: float
    """Relative change of the reference since half of these steps."""
    cosine: float
    """Between what the method and what the reference add."""
    ratio: float
    """Norm of what the method adds, over that of the reference."""

    @property
    def agrees(self) -> bool:
        """Whether the cosine is at least 0.9, and the norms differ by at most a factor of 2."""
        return self.cosine >= 0.9 and 0.5 <= self.ratio <= 2


class Shares:
    """The shares of all levels below one level, at one search step.

    Args:
        levels: of the search; they do not change.
        k: the search step.
        level: the level whose gradient is examined; by default the highest.
        seed: of the dropout masks, the same for every gradient.
    """

    def __init__(self, levels: Multilevel, k: int, level: str | None = None, *, seed: int = 0) -> None:
        names = list(levels.levels)
        self.level = names[-1] if level is None else level
        self.below = names[: names.index(self.level)]
        self._levels, self._k, self._seed = levels, k, seed
        self._first = self._drawn(lambda: levels.direct_gradient(self.level, k))

    def of(self, below: str, methods: Mapping[str, Response], most: int = 0) -> list[Share]:
        """Return the share of a level by each of some methods.

        Args:
            below: the level that responds.
            methods: how, by their names in the result.
            most: largest number of steps of the reference, a power of 2; with 0 there is none.
        """
        reference, steps, change = self.reference(below, most) if most else (None, 0, math.nan)
        size, found = self._first.norm(), []
        for label, method in methods.items():
            added = self._added(below, method)
            cosine = ratio = of_reference = math.nan
            if reference is not None:
                of_reference = float(reference.norm() / size)
                cosine = float(added @ reference / (added.norm() * reference.norm()))
                ratio = float(added.norm() / reference.norm())
            share = float(added.norm() / size)
            found.append(Share(below, label, share, of_reference, steps, change, cosine, ratio))
        return found

    def reference(self, below: str, most: int) -> tuple[Tensor, int, float]:
        """Return what the exact response adds, the number of its steps, and its change since half of them."""
        steps, change = 1, math.inf
        added = self._added(below, Unrolled(1, memory="recompute"))
        while change >= SETTLED and 2 * steps <= most:
            steps, before = 2 * steps, added
            added = self._added(below, Unrolled(steps, memory="recompute"))
            change = float((added - before).norm() / added.norm())
        return added, steps, change

    def _added(self, below: str, method: Response) -> Tensor:
        return self._drawn(lambda: self._levels.response_gradient(self.level, self._k, {below: method}))

    def _drawn(self, gradient: Callable[[], Parameters]) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            return torch.cat([each.flatten() for each in gradient().values()])


class ResponseShares(Observer):
    """Records how much the configured response of each lower level adds to the gradient of the highest level.

    The values are `LEVEL/share`, and with a reference `LEVEL/reference`, `LEVEL/cosine`, `LEVEL/ratio`, `LEVEL/steps`
    and `LEVEL/change`; see `Share`. A level whose response is not configured has values only with a reference.

    Args:
        levels: of the search.
        moments: how often in the search to record, at the ends of epochs; the last is the end of the search.
        most: largest number of steps of the reference, which is doubled until it settles; with 0 there is none. `K`
            steps take about `8 K` times as long as a first-order gradient.
    """

    def __init__(self, levels: Multilevel, *, moments: Count = 3, most: int = 0) -> None:
        self._levels, self._moments, self._most = levels, moments, most
        self._done = 0

    def on_epoch(self, step: int, network: Any, genotype: Genotype, /) -> dict[str, float]:
        due = self._moments * step // self._levels.steps
        if due == self._done:
            return {}
        self._done = due
        found: dict[str, float] = {}
        for share in shares(self._levels, step, self._most):
            values = share._asdict()
            found |= {f"{share.level}/{name}": values[name] for name in (FIELDS if self._most else FIELDS[:1])}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self._done = state["done"]


def shares(
    levels: Multilevel,
    step: int,
    most: int,
    methods: Mapping[str, Response] | None = None,
    *,
    below: str | None = None,
    seed: int = 0,
) -> list[Share]:
    """Return the shares of all levels below the highest, after a number of steps of the search.

    Args:
        levels: of the search.
        step: steps done, at least 1.
        most: largest number of steps of the reference; 0 for none.
        methods: how levels respond, by their names in the result; by default as configured.
        below: the only level to respond; None for one after another.
        seed: of the dropout masks.

    Raises:
        UnknownNameError: no level below has this name.
    """
    measured, found = Shares(levels, step - 1, seed=seed), list[Share]()
    configured = levels.levels[measured.level].hypergradient
    if below is not None and below not in measured.below:
        raise UnknownNameError(f"level below '{measured.level}'", below, measured.below)
    for name in measured.below if below is None else [below]:
        if methods or most or name in configured:
            own = create_response(configured.get(name, "first_order"), f"hypergradient.{name}")
            found += measured.of(name, methods or {name_of(own): own}, most)
    return found


FIELDS = ("share", "reference", "cosine", "ratio", "steps", "change")
"""The recorded fields of a `Share`; the first alone if there is no reference."""

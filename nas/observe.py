"""Collapse indicators: signs, recorded at each epoch, that a search drifts towards a poor genotype.

- Skip connections take over. They are the first to be useful beside operations that are not trained yet, and
  differentiable searches are known to end in them alone (DARTS+, Liang et al., 2019). Poolings do not count: published
  reduction cells consist of them.
- Decisions stay open. A supernet that mixes its candidates evenly says little about the network that keeps one of each
  (entropy: DA2S, Tian et al., 2021; margins: FairDARTS, Chu et al., 2020).
- The validation loss is sharp in the arch parameters. Its largest eigenvalue grows before derived networks get worse
  (RobustDARTS, Zela et al., ICLR 2020, sec. 4).
- The gradient of the arch parameters dies while decisions are open (Bi et al., 2019, arXiv:1910.11831).

The first two are read off the mixing weights. The last two take passes over one validation batch, the same at every
epoch, in eval mode, where nothing moves and no relaxation draws.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.canon import is_identity
from nas.cell import Cell, Chain
from nas.genotype import Choice, Genotype, Provenance
from nas.hypergradient.twice import twice_differentiable
from nas.mixed import Decided
from nas.regularize import entropy
from nas.space import Description
from nas.supernet import Supernet

INDICATORS = "indicators"
"""The kind of the records that hold them, one for each epoch."""
VALIDATION = "validation"
"""The kind of the records that hold the task's metrics of the supernet, one for each epoch."""
SKIPS = "skips/"
"""What the names of a cell's share of skip connections begin with."""

OPEN = 0.9
"""Mean entropy above which decisions count as open: 0.9 is, for eight candidates, about 0.38 on one of them."""
MAJORITY = 0.5
"""The share of skip connections above which a cell has collapsed. DARTS+ stops at two of eight already; the published
cells of DARTS have two or three."""
SMOOTHED = 5
"""k of RobustDARTS: over how many epochs eigenvalues are averaged, and how far back they are compared."""
SHARPENED = 0.75
"""RobustDARTS stops where the eigenvalue k epochs ago is below this share of the present one."""
DEAD = 0.01
"""The share of its largest value below which the arch gradient counts as dead."""


@dataclass(frozen=True)
class Observer:
    """Takes the indicators of a search.

    Args:
        description: the space that is searched.
        loss: of the level that owns the arch parameters, as a function of the supernet alone; None where none does.
        products: Hessian-vector products for the largest eigenvalue, each about three passes; 0 leaves it out.
    """

    description: Description
    loss: Callable[[nn.Module], Tensor] | None = None
    products: int = 0

    def __call__(self, supernet: Supernet, genotype: Genotype) -> dict[str, float]:
        """The indicators by name: of the supernet as it is, and of the `genotype` that it derives.

        `entropy` in [0, 1], `margin` (mean) and `least_margin` in [0, 1], the share of `undecided` decisions,
        `skips/CELL` in [0, 1], `gradient` (a norm), and `eigenvalue` and `eigenvalue_error` where there are `products`.
        """
        provenance = genotype.provenance or Provenance()
        margins = list(provenance.margins.values())
        found = {"entropy": entropy(supernet).item()}
        if margins:
            found |= {"margin": sum(margins) / len(margins), "least_margin": min(margins)}
            found["undecided"] = len(provenance.undecided) / len(margins)
        shares = skips(self.description, genotype.choices, provenance.undecided)
        found |= {SKIPS + cell: share for cell, share in shares.items()}
        return found | (sharpness(supernet, self.loss, self.products) if self.loss else {})


def skips(description: Description, choices: Mapping[str, Choice], undecided: Collection[str] = ()) -> dict[str, float]:
    """For each cell the share of its chosen operations that are skip connections, `undecided` ones not counted.

    A candidate is a skip connection if it returns its input at any place in cells of this label. A cell that has no
    such candidate, or no other, cannot collapse and is left out, as is one that the choices do not reach.
    """
    alike: dict[str, list[Decided]] = defaultdict(list)
    for cell in description.network.modules():
        if isinstance(cell, Cell | Chain):
            alike[cell.label] += [each for each in cell.modules() if isinstance(each, Decided)]
    shares = {}
    for label, members in alike.items():
        places = [each for each in members if description.decisions[each.label].kind == "operation"]
        names = {name for each in places for name, _ in each.named_children()}
        skipping = {name for each in places for name, child in each.named_children() if is_identity(child)}
        chosen = [each for each in dict.fromkeys(each.label for each in places) if each in choices]
        if chosen and skipping and names - skipping:
            shares[label] = sum(choices[each] in skipping and each not in undecided for each in chosen) / len(chosen)
    return shares


def sharpness(supernet: Supernet, loss: Callable[[nn.Module], Tensor], products: int = 0) -> dict[str, float]:
    """The norm of the gradient of `loss(supernet)` with respect to the arch parameters, in eval mode, as `gradient`;
    with `products` also the largest eigenvalue of its Hessian and the bound of its error, as `eigenvalue` and
    `eigenvalue_error`."""
    parameters = list(supernet.arch.values())
    training = supernet.training
    supernet.eval()
    try:
        with twice_differentiable() if products else nullcontext():
            measured = loss(supernet)
        gradient = _gradient(measured, parameters, create_graph=products > 0)
        found = {"gradient": gradient.norm().item()}
        if products:

            def product(vector: Tensor) -> Tensor:
                return _gradient(gradient @ vector, parameters, retain_graph=True)

            # The gradient lies mostly where the loss curves, which spares products; the rest is for where it does not.
            drawn = torch.randn(len(gradient), generator=torch.Generator().manual_seed(0)).to(gradient)
            start = gradient.detach() / (gradient.detach().norm() or 1.0) + 0.1 * drawn / drawn.norm()
            curved = gradient.requires_grad
            value, error = largest_eigenvalue(product, start, products) if curved else Eigenvalue(0.0, 0.0)
            found |= {"eigenvalue": value, "eigenvalue_error": error}
    finally:
        supernet.train(training)
    return found


class Eigenvalue(NamedTuple):
    """An eigenvalue as estimated."""

    value: float
    error: float
    """A bound of the distance to the nearest eigenvalue, which is the one sought unless the start hardly held it."""


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor, products: int) -> Eigenvalue:
    """The largest eigenvalue of a symmetric matrix of which only the product with a vector is known.

    The best value in the space of the vectors that a power iteration passes through (Lanczos), hence never below what
    the power iteration has after equally many products, and exact after as many as there are distinct eigenvalues. Not
    a number where a product is not finite.

    Args:
        product: a vector `(n,)` to the matrix times it, `(n,)`.
        start: where to begin, `(n,)`, not orthogonal to the eigenvector; a random vector is not.
        products: the most products to take.
    """
    basis = [start / start.norm()]
    images: list[Tensor] = []
    while True:
        images.append(product(basis[-1]))
        rest = images[-1]
        known = torch.stack(basis)
        for _ in range(2):  # once leaves rounding errors that add up
            rest = rest - known.T @ (known @ rest)
        if len(images) == min(products, len(start)) or rest.norm() <= 1e-5 * images[-1].norm():
            break
        basis.append(rest / rest.norm())
    projected = torch.stack(basis) @ torch.stack(images).T
    if not projected.isfinite().all():
        return Eigenvalue(math.nan, math.nan)
    values, vectors = torch.linalg.eigh((projected + projected.T) / 2)
    return Eigenvalue(values[-1].item(), (rest.norm() * vectors[-1, -1]).abs().item())


def best_epoch(records: Iterable[Mapping[str, Any]], score: str) -> int | None:
    """The step of the epoch at which the supernet had the best validation score, the first of equal ones, if any."""
    found = {record["step"]: record.get(score) for record in records if record["kind"] == VALIDATION}
    known = {step: value for step, value in found.items() if value is not None}
    return max(known, key=lambda step: (known[step], -step), default=None)


def advice(epochs: Sequence[Mapping[str, Any]], *, finished: bool = False) -> list[str]:
    """What the indicators give reason to say, a sentence each; nothing where all is well.

    Args:
        epochs: the indicators of every epoch so far, each with its `step`.
        finished: whether the search is over; only then do open decisions matter.
    """
    if not epochs:
        return []
    # Values that are not finite are recorded as null, and say nothing.
    epochs = [{name: value for name, value in epoch.items() if value is not None} for epoch in epochs]
    now, said = epochs[-1], []
    still_open = now.get("entropy", 0.0) > OPEN
    for name, share in now.items():
        if name.startswith(SKIPS) and share > MAJORITY and not still_open:
            said.append(
                f"cell '{name.removeprefix(SKIPS)}' has collapsed: {share:.0%} of its operations are skip connections;"
                " use the genotype of an earlier epoch, limit them by search.at_most, or give the arch parameters a"
                " longer warmup or a regularizer (beta_decay, l2_to_uniform)"
            )
    if (sharp := _sharpened(epochs)) is not None:
        said.append(
            f"the validation loss has become sharp: its largest eigenvalue {now['eigenvalue']:.3g} has grown by more"
            f" than {1 / SHARPENED - 1:.0%} in {SMOOTHED} epochs; RobustDARTS would stop, and use the genotype of step"
            f" {sharp}"
        )
    if still_open and now.get("gradient", 1.0) < DEAD * max(epoch.get("gradient", 0.0) for epoch in epochs):
        said.append(
            "the arch gradient has died while decisions are open: raise the learning rate of the arch parameters, or"
            " let their level begin earlier (warmup)"
        )
    if finished and still_open:
        said.append(
            f"decisions are open at the end (entropy {now['entropy']:.2f} of 1): the derived network may differ from"
            " what the supernet learned; search longer, or add or raise the regularizer entropy"
        )
    return said


def _sharpened(epochs: Sequence[Mapping[str, Any]]) -> int | None:
    """The step whose genotype to go back to, by the rule of RobustDARTS, or None where it says to go on."""
    known = [epoch for epoch in epochs if epoch.get("eigenvalue") is not None]
    if len(known) < 2 * SMOOTHED or known[-1] is not epochs[-1]:
        return None
    values = [epoch["eigenvalue"] for epoch in known]
    before, now = (sum(part) / SMOOTHED for part in (values[-2 * SMOOTHED : -SMOOTHED], values[-SMOOTHED:]))
    return int(known[-1 - SMOOTHED]["step"]) if before < SHARPENED * now else None


def _gradient(
    value: Tensor, parameters: Sequence[Tensor], *, create_graph: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """The gradient as one vector `(n,)`; zeros where nothing depends on the parameters."""
    parts = torch.autograd.grad(
        value,
        parameters,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return torch.cat([part.flatten() for part in parts])

"""Collapse indicators: signs that a search drifts towards a poor genotype, recorded at each epoch.

- Skip connections take over. They are the first to be useful beside operations that are not trained yet, and
  differentiable searches are known to end in them alone (DARTS+, Liang et al., 2019). Poolings do not count: published
  reduction cells consist of them.
- Decisions stay open. A supernet that mixes its candidates evenly says little about the network that keeps one of each
  (entropy: DA2S, Tian et al., 2021; margins: FairDARTS, Chu et al., 2020).
- The validation loss is sharp in the arch parameters. Its largest eigenvalue grows before derived networks get worse
  (RobustDARTS, Zela et al., ICLR 2020, sec. 4).
- The gradient of the arch parameters dies while decisions are open (Bi et al., 2019, arXiv:1910.11831).

The first two depend on the mixing weights alone. The last two evaluate one validation batch, the same at every epoch,
in eval mode, which changes no buffer and draws no random number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.compare.canonical_form import is_identity
from nas.declarations import SHARES, declaration_of
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype, Provenance
from nas.hypergradient.eigenvalue import Eigenvalue, largest_eigenvalue
from nas.kernels.second_order import twice_differentiable
from nas.multilevel.regularizers import entropy
from nas.relaxation.relaxation import USUAL
from nas.run.observer import Observer
from nas.space.cell import Cell, Chain
from nas.space.definition import Description
from nas.space.mixed import Decided
from nas.supernet import Supernet

COLLAPSE = "collapse"
"""The name of the observer."""
SKIPS = "skips/"
"""Prefix of the name of a cell's share of skip connections."""

OPEN = 0.9
"""Mean entropy above which decisions count as open: 0.9 is, for eight candidates, about 0.38 on one of them."""
MAJORITY = 0.5
"""The share of skip connections above which a cell has collapsed. DARTS+ stops at two of eight already; the published
cells of DARTS have two or three."""
WINDOW = 5
"""Over how many epochs RobustDARTS averages eigenvalues."""
DELTA = 4
"""How many epochs apart RobustDARTS compares the means."""
FACTOR = 1.3
"""RobustDARTS stops if the later mean is above this times the earlier one."""
DEAD = 0.01
"""The share of its largest value below which the arch gradient counts as dead."""


class Collapse(Observer):
    """Takes the collapse indicators of a search at each epoch.

    They are, by name: `entropy` in [0, 1], if mixing weights sum to 1; `margin` (mean) and `least_margin` in [0, 1];
    the share of `undecided` decisions; `skips/CELL` in [0, 1]; `gradient` (a norm); and with `products` the
    `eigenvalue` and its `eigenvalue_error`.

    Args:
        description: the space that is searched.
        loss: of the level that owns the arch parameters, as a function of the supernet; None if no level does.
        products: Hessian-vector products for the largest eigenvalue, each about three passes; 0 leaves it out.
    """

    name = COLLAPSE

    def __init__(
        self, description: Description, loss: Callable[[nn.Module], Tensor] | None = None, products: int = 0
    ) -> None:
        self.description, self.loss, self.products = description, loss, products

    def on_epoch(self, step: int, supernet: Supernet, genotype: Genotype, /) -> dict[str, float]:
        provenance = genotype.provenance or Provenance()
        margins = list(provenance.margins.values())
        found = {}
        if SHARES in declaration_of(supernet.relaxation, USUAL).gives:
            found["entropy"] = entropy(supernet).item()
        if margins:
            found |= {"margin": sum(margins) / len(margins), "least_margin": min(margins)}
            found["undecided"] = len(provenance.undecided) / len(margins)
        shares = skips(self.description, genotype.choices, provenance.undecided)
        found |= {SKIPS + cell: share for cell, share in shares.items()}
        return found | (sharpness(supernet, self.loss, self.products) if self.loss else {})


def skips(description: Description, choices: Mapping[str, Choice], undecided: Collection[str] = ()) -> dict[str, float]:
    """Return for each cell the share of its chosen operations that are skip connections; `undecided` ones do not count.

    Cells of `skip_places` alone are included, and of these the ones that exist given the choices.
    """
    shares = {}
    for label, places in skip_places(description).items():
        if chosen := [each for each in places.labels if each in choices]:
            shares[label] = len(places.skipped(choices) - set(undecided)) / len(chosen)
    return shares


@dataclass(frozen=True)
class SkipPlaces:
    """Where a cell may have skip connections."""

    labels: tuple[str, ...]
    """The choices of operations in the cell."""
    names: frozenset[str]
    """The candidates that are skip connections."""

    def skipped(self, choices: Mapping[str, Choice]) -> set[str]:
        """Return the labels whose choice is a skip connection."""
        return {label for label in self.labels if choices.get(label) in self.names}


def skip_places(description: Description) -> dict[str, SkipPlaces]:
    """Return the places of skip connections by the label of the cell.

    A candidate is a skip connection if it returns its input anywhere in cells of this label. A cell without such a
    candidate, or with no other, cannot collapse and is left out.
    """
    alike: dict[str, list[Decided]] = defaultdict(list)
    for cell in description.network.modules():
        if isinstance(cell, Cell | Chain):
            alike[cell.label] += [each for each in cell.modules() if isinstance(each, Decided)]
    found = {}
    for label, members in alike.items():
        places = [each for each in members if description.decisions[each.label].kind == "operation"]
        names = {name for each in places for name, _ in each.named_children()}
        skipping = frozenset(name for each in places for name, child in each.named_children() if is_identity(child))
        if skipping and names - skipping:
            found[label] = SkipPlaces(tuple(dict.fromkeys(each.label for each in places)), skipping)
    return found


def sharpness(supernet: Supernet, loss: Callable[[nn.Module], Tensor], products: int = 0) -> dict[str, float]:
    """Measure how sharp `loss(supernet)` is in the arch parameters, in eval mode.

    Args:
        supernet: it does not change.
        loss: of a network.
        products: the most Hessian-vector products; 0 leaves the eigenvalue out.

    Returns:
        The norm of the `gradient`, and with `products` the largest `eigenvalue` of the Hessian and the bound of its
        error, `eigenvalue_error`.
    """
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


def advice(epochs: Sequence[Mapping[str, Any]], *, finished: bool = False) -> list[str]:
    """Return advice that the indicators give reason for, a sentence each.

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
    if (centre := sharpened([epoch.get("eigenvalue") for epoch in epochs])) is not None:
        sharp = epochs[centre]["step"]
        said.append(
            f"the validation loss has become sharp: its largest eigenvalue {now['eigenvalue']:.3g} has grown by more"
            f" than {FACTOR - 1:.0%} in {DELTA} epochs; RobustDARTS would stop, and use the genotype of step {sharp}"
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


def sharpened(
    eigenvalues: Sequence[float | None], window: int = WINDOW, delta: int = DELTA, factor: float = FACTOR
) -> int | None:
    """Return whether eigenvalues have grown, by the rule of RobustDARTS (automl/RobustDARTS, `EVLocalAvg`).

    The mean of a position is that of a window centred there, cut short at the first positions. The means of the last
    position with a whole right half, and of the one `delta` before it, are compared.

    Args:
        eigenvalues: epoch by epoch; None for one that is not finite.
        window: an odd number.
        delta: distance of the two positions.
        factor: the largest ratio of their means.

    Returns:
        The earlier position if the ratio is larger; None if it is not, or if an eigenvalue or the ratio is undefined.
    """
    half = window // 2
    now = len(eigenvalues) - 1 - half
    before = now - delta
    if before < 0:
        return None
    windows = [eigenvalues[max(0, centre - half) : centre + half + 1] for centre in (before, now)]
    values = [[value for value in each if value is not None] for each in windows]
    if any(len(known) < len(each) for known, each in zip(values, windows, strict=True)):
        return None
    earlier, later = (sum(each) / len(each) for each in values)
    return before if later > factor * earlier > 0 else None


def _gradient(
    value: Tensor, parameters: Sequence[Tensor], *, create_graph: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """The gradient as one vector `(n,)`; zeros if nothing depends on the parameters."""
    parts = torch.autograd.grad(
        value,
        parameters,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return torch.cat([part.flatten() for part in parts])

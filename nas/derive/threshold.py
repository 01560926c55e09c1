"""The policy `threshold`: an edge keeps its best operation only if its mixing weight reaches a threshold."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from nas.declarations import SEPARATE, declaration_of, declares
from nas.derive.candidates import edges
from nas.derive.strongest import choose_strongest
from nas.errors import ConfigError
from nas.genotype.decision import NONE, Choice, Decision
from nas.registry import Share

if TYPE_CHECKING:
    from nas.supernet import Supernet


@declares(reads="mixing weights", needs=SEPARATE)
def choose_above(
    decisions: Mapping[str, Decision],
    weights: Mapping[str, Tensor],
    supernet: Supernet,
    costs: Mapping[str, Sequence[float]] | None = None,
    *,
    threshold: Share = 0.85,
) -> dict[str, Choice]:
    """Choose as `strongest`, and then `none` on each in-edge whose strongest candidate is below the threshold.

    This is the derivation `threshold_sparse` of FairDARTS. A node keeps its strongest in-edges, and each of them its
    best candidate besides `none`. Decisions that are not on an in-edge take their strongest candidate.

    Args:
        decisions: the decisions of a space, by label.
        weights: the mixing weights `(candidates,)` of each decision that has arch parameters.
        supernet: whose relaxation must give weights that do not depend on one another, such as `sigmoid`.
        costs: what each candidate of a decision costs, to settle ties.
        threshold: the least mixing weight of an operation on an edge, in (0, 1).

    Raises:
        ConfigError: the candidates of a decision compete for their weights, as under `softmax`.
        DivergedError: a mixing weight is not finite.

    Warns:
        UserWarning: a node gets no operation at all, so that its output is zero; or a candidate below the threshold
            stays, because its edge has no candidate `none`.

    References:
        Chu et al., Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture Search, ECCV 2020.
    """
    relaxation = supernet.relaxation
    if SEPARATE not in declaration_of(relaxation).gives:
        found = type(relaxation).__name__
        raise ConfigError(f"derivation 'threshold': the relaxation must give {SEPARATE}, got {found}. Use 'sigmoid'")
    choices = choose_strongest(decisions, weights, costs)
    by_node = edges(decisions)
    weak: list[str] = []
    for edge in {edge for by_source in by_node.values() for edge in by_source.values()} & choices.keys():
        names, values = decisions[edge].candidates, weights[edge].double().tolist()
        strength, best = max(((v, -i) for i, v in enumerate(values) if names[i] != NONE), default=(0.0, 0))
        if strength >= threshold:
            choices[edge] = names[-best]
        elif NONE in names:
            choices[edge] = NONE
        else:
            weak.append(edge)
    if weak:
        _warn(f"{_listed(weak)} stays below the threshold {threshold:g}, since its edge has no candidate '{NONE}'")
    empty = [
        node
        for node, by_source in by_node.items()
        if isinstance(kept := choices.get(node), tuple)
        and all(source in by_source and choices[by_source[source]] == NONE for source in kept)
    ]
    if empty:
        _warn(f"{_listed(empty)} gets no operation above the threshold {threshold:g}, so its output is zero")
    return choices


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(f"'{label}'" for label in sorted(labels))


def _warn(text: str) -> None:
    warnings.warn(f"derivation 'threshold': {text}", stacklevel=3)

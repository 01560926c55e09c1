"""What a wrapper is: it changes what mixed operations compute, or the mixing weights of a forward pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from nas.genotype.decision import Decision

if TYPE_CHECKING:
    from nas.space.mixed import MixedOperation, Sampled

Factory = Callable[[], nn.Module]

LossOfWeights = Callable[[Mapping[str, Tensor]], Tensor]
"""The loss of a step as a function of the mixing weights: on its own batch, in eval mode, without side effects."""


@dataclass(frozen=True)
class Moment:
    """Where in a search a forward pass lies. What changes over a search is a function of it, and so is all noise."""

    seed: int
    step: int
    steps: int
    """Of the whole search."""
    progress: float
    """The completed share of the search, in [0, 1]."""
    turn: int
    """The number of this forward pass among those of the step, from 0."""
    learns: bool
    """Whether the pass computes a gradient of the logits, as in a step that moves them."""
    training: bool
    """Whether the supernet is in train mode; in eval mode nothing is random."""
    fixed: bool
    """Whether the supernet is fixed to a genotype: it computes what the derived network computes."""
    loss: LossOfWeights | None = None
    """The loss of the step; None outside of the steps of a level."""
    candidates: Mapping[str, Sequence[str | int]] = field(default_factory=dict)
    """Those of each decision, by label."""

    def noise_seed(self, place: object) -> int:
        """Return the seed of the noise at one place, for a `torch.Generator`; the same in each evaluation of a pass."""
        text = f"{self.seed}\0{place}\0{self.step}\0{self.turn}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Spot(NamedTuple):
    """One place of a decision in a network; cells that are used several times share its label."""

    label: str
    in_edge: bool
    """Whether it lies on an in-edge of a node."""
    seed: int
    """The same at each construction, and another one at each spot; for noise."""
    moment: Callable[[], Moment]
    """Returns the moment of the running forward pass."""


class Term(NamedTuple):
    """A term that is added to the sum of the candidates and is no candidate itself."""

    make: Factory
    weight: Callable[[Moment], float]
    """Its factor. In a supernet that is fixed to a genotype the term is left out."""


class Wrapper:
    """Base class of wrappers. Override what the wrapper changes; every method here changes nothing.

    A supernet calls `require` first, then builds its mixed operations by `terms`, `candidates` and `operation`, and
    calls `transform` in each forward pass. All of them act in the order in which wrappers are listed. A wrapper has no
    counters: what it does is a function of the moment. Declare what it reads, writes, needs and gives by
    `nas.declarations.declares`.

    Example:
        >>> @nas.register("wrapper", "floor")
        ... @declares(reads="mixing weights", writes="mixing weights")
        ... class Floor(Wrapper):
        ...     def __init__(self, share: float = 0.1) -> None:
        ...         self.share = share
        ...     def transform(self, weights, moment):
        ...         if not moment.training:
        ...             return weights
        ...         return {label: (1 - self.share) * w + self.share / len(w) for label, w in weights.items()}
    """

    reshapes = False
    """Whether operation weights have other shapes than those of derived networks, which then cannot inherit them."""
    schedule = "none"
    """How it changes over a search, in words; `none` if it does not. `nas.Levels` needs `steps` for one that does."""
    perturbs = False
    """Whether it changes the mixing weights in the steps that move no logits alone (see `Moment.learns`)."""
    weighs_edges = False
    """Whether each choice of in-edges has arch parameters of its own, `(sources,)`; see `edge_weights`."""

    def require(self, decisions: Mapping[str, Decision]) -> None:
        """Raise `ConfigError` for a space that the wrapper cannot take, given its decisions by label.

        In a search in stages they have all candidates, also those that were dropped.
        """

    def terms(self, spot: Spot, candidates: Mapping[str, Factory]) -> Mapping[str, Term]:
        """Return further terms of the sum at one spot, by names that no candidate has.

        Args:
            spot: of an operation decision.
            candidates: what makes the candidates of the space, by name.
        """
        return {}

    def candidates(self, spot: Spot, made: Mapping[str, Factory]) -> Mapping[str, Factory]:
        """Return what makes the candidates and further terms at one spot, in place of `made`; with the same names."""
        return made

    def operation(self, spot: Spot, operation: MixedOperation) -> MixedOperation:
        """Return what takes the place of a mixed operation; its candidates keep their names."""
        return operation

    def transform(self, weights: Mapping[str, Tensor | Sampled], moment: Moment) -> Mapping[str, Tensor | Sampled]:
        """Return the mixing weights that a forward pass uses. Not called in a supernet that is fixed to a genotype.

        Args:
            weights: what the relaxation returned for each decision with candidates, or the wrapper before.
            moment: of the pass.

        Shape:
            Each `(candidates,)`.
        """
        return weights

    def edge_weights(self, logits: Tensor) -> Tensor:
        """Return the factors of the in-edges of a node, given their arch parameters; called if `weighs_edges`.

        Shape:
            `(sources,)` to `(sources,)`.
        """
        raise NotImplementedError

"""Freezing of operations that overfit the training data (Jiang et al., OLES, NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import msgspec
import torch
from torch import Tensor

from nas.declarations import LEARNED, declares
from nas.registry import Count
from nas.space.mixed import MixedOperation, candidates_of
from nas.supernet import Supernet

Gradients = Mapping[str, Sequence[Tensor]]
"""The gradients of the tensors of each operation, by the operation's name."""


class Freezing(Protocol):
    """Decides which operations stop learning: register a class as a `freezing`.

    Example:
        >>> @nas.register("freezing", "at_once")
        ... class AtOnce:
        ...     def __call__(self, validation, training):
        ...         return [name for name in validation if name.endswith("skip_connect")]
        ...     def state_dict(self):
        ...         return {}
        ...     def load_state_dict(self, state): ...
    """

    def __call__(self, validation: Gradients, training: Gradients, /) -> Sequence[str]:
        """Return the operations that are frozen from now on.

        It is called at each step of the level of the arch parameters.

        Args:
            validation: gradients of that level's loss, of the operations that are not frozen.
            training: gradients of the latest step of the operations' own level, before it was clipped.
        """

    def state_dict(self) -> dict[str, Any]:
        """What it remembers between calls, as plain data for the checkpoint."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""


@declares(reads="candidates", writes="candidates", needs=LEARNED)
class OperationFreezing:
    """Freezes an operation whose validation and training gradients agree too little.

    Their agreement is the cosine over the first dimension of each tensor, averaged over its other dimensions, then over
    the operation's tensors. If its mean over `window` arch steps is below `threshold`, the operation is frozen for
    good. Otherwise the next window begins. An arch step in which either gradient is zero, as of a candidate that was
    not computed, does not count.

    Args:
        window: number of arch steps. The authors' code sums one more before it divides by this number.
        threshold: the least mean agreement.

    References:
        Jiang et al., Operation-Level Early Stopping for Robustifying Differentiable NAS, NeurIPS 2023, alg. 1;
        PasaLab/oles, `train_search.py`, `check_grads_cosine`.
    """

    def __init__(self, *, window: Count = 20, threshold: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.4) -> None:
        self.window, self.threshold = window, threshold
        self._seen: dict[str, list[float]] = {}  # by operation: the sum of agreements, and their number

    def __call__(self, validation: Gradients, training: Gradients, /) -> list[str]:
        names = list(validation)
        if not names:
            return []
        found = torch.stack([_agreement(validation[name], training[name]) for name in names]).tolist()
        frozen = []
        for name, value in zip(names, found, strict=True):
            if value != value:  # not a number: a gradient is zero
                continue
            total, count = self._seen.get(name, [0.0, 0.0])
            self._seen[name] = [total + value, count + 1]
            if count + 1 == self.window:
                del self._seen[name]
                if (total + value) / self.window < self.threshold:
                    frozen.append(name)
        return frozen

    def state_dict(self) -> dict[str, Any]:
        return {"seen": {name: list(values) for name, values in self._seen.items()}}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self._seen = {name: list(values) for name, values in state["seen"].items()}


def operations_of(supernet: Supernet, owned: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the parameters of each candidate operation by its path, as far as a level owns them.

    A parameter inside of nested decisions belongs to the innermost candidate.

    Args:
        supernet: the supernet.
        owned: the names of the parameters.
    """
    owners: dict[str, str] = {}
    for path, module in supernet.named_modules():
        if isinstance(module, MixedOperation):
            for name, candidate in candidates_of(module).items():
                place = f"{path}.{name}"
                owners |= {f"{place}.{own}": place for own, _ in candidate.named_parameters()}
    found: dict[str, list[str]] = {}
    for parameter in owned:
        if parameter in owners:
            found.setdefault(owners[parameter], []).append(parameter)
    return {name: tuple(parameters) for name, parameters in found.items()}


def _agreement(validation: Sequence[Tensor], training: Sequence[Tensor]) -> Tensor:
    """The mean cosine of the tensors of one operation, a scalar; not a number if either gradient is zero."""
    sides = [[tensor.reshape(tensor.shape or (1,)) for tensor in each] for each in (validation, training)]
    cosines = torch.stack([torch.cosine_similarity(a, b, dim=0).mean() for a, b in zip(*sides, strict=True)])
    known = [torch.stack([tensor.abs().amax() for tensor in each]).amax() > 0 for each in sides]
    return torch.where(known[0] & known[1], cosines.mean(), torch.nan)

"""Sum of tensors that are added one at a time."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from nas.errors import SpaceError
from nas.kernels.torch_internals import transforms_active


class RunningSum:
    """Sum of tensors of one shape, computed in place from the second addition on, which saves memory.

    Raises:
        SpaceError: the tensors have different shapes; plain evaluation names the candidates.
    """

    def __init__(self, terms: Iterable[Tensor] = ()) -> None:
        self._sum: Tensor | None = None
        self._own = False
        for term in terms:
            self.add(term)

    def add(self, term: Tensor) -> None:
        if self._sum is None:
            self._sum = term
            return
        if self._sum.shape != term.shape:
            raise unequal_shapes()
        if self._own and self._sum.dtype == term.dtype and not transforms_active():
            self._sum += term
        else:
            self._sum, self._own = self._sum + term, True

    def sum(self) -> Tensor:
        """Return the sum so far; raises `ValueError` if there is none."""
        if self._sum is None:
            raise ValueError("a sum of no tensors has no shape")
        return self._sum


def unequal_shapes() -> SpaceError:
    """Return the error for terms of different shapes."""
    return SpaceError("the terms of a sum must have equal shapes; give all candidates of a node the same output shape")

"""What every regularizer must satisfy: a test class to inherit from.

>>> class TestNoSkips(RegularizerTests):
...     regularizer = {"name": "no_skips", "candidate": "skip_connect"}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from nas.cost.space_cost import costs
from nas.multilevel.regularizers import Term
from nas.registry import kind
from nas.space.definition import SearchSpace
from nas.supernet import Supernet
from nas.testing.small_space import SMALL
from nas.testing.subject import Subject, made, unchanged


class RegularizerTests:
    """Conformance tests of a regularizer: subclass it in a test module, as `Test...`, and name the regularizer.

    One that takes `cost`, `flops` or `latency` gets the parameters of the candidates for each of these.
    """

    regularizer: ClassVar[Subject]
    """A name, a mapping of `name` and arguments, or a function of the supernet."""
    space: ClassVar[SearchSpace] = SMALL.space
    """A search space in which the regularizer has an effect; the default has the candidates of NAS-Bench-201."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options of the space."""

    def test_it_is_a_finite_scalar(self) -> None:
        value = self._value(self._supernet())
        assert isinstance(value, Tensor), f"a regularizer must return a tensor, got {value!r}"
        assert value.dim() == 0, f"a regularizer must return a scalar, got a tensor of shape {tuple(value.shape)}"
        assert value.isfinite(), f"a regularizer must be finite, got {value.item():g}"

    def test_it_depends_on_the_arch_parameters(self) -> None:
        supernet = self._supernet()
        value = self._value(supernet)
        assert value.requires_grad, "the value does not depend on supernet.arch; name a `space` in which it does"
        gradients = torch.autograd.grad(value, supernet.logits(), allow_unused=True, materialize_grads=True)
        assert any(gradient.any() for gradient in gradients), "the gradient of all arch parameters is zero"

    def test_the_gradient_equals_finite_differences(self) -> None:
        supernet = self._supernet()
        assert torch.autograd.gradcheck(lambda *_: self._value(supernet), supernet.logits(), raise_exception=False), (
            "the gradient differs from finite differences in float64"
        )

    def test_operation_weights_get_no_gradient(self) -> None:
        supernet = self._supernet()
        value = self._value(supernet)
        weights = dict(supernet.network.named_parameters())
        found = torch.autograd.grad(value, list(weights.values()), allow_unused=True) if value.requires_grad else ()
        for name, gradient in zip(weights, found, strict=False):
            assert gradient is None, f"the operation weight '{name}' gets a gradient; only arch parameters may"

    def test_it_changes_nothing(self) -> None:
        supernet = self._supernet()
        with unchanged("a regularizer", supernet):
            self._value(supernet)

    def test_the_ramp_scales_it(self) -> None:
        supernet = self._supernet()
        term = Term("term", 0.5, True, self._value)
        full, half, none = (term(supernet, ramped).item() for ramped in (1.0, 0.5, 0.0))
        assert none == 0, f"at the start of its ramp the term must be 0, got {none:g}"
        assert abs(half - full / 2) <= 1e-9 * abs(full), f"half of the ramp must give half of {full:g}, got {half:g}"

    def _supernet(self) -> Supernet:
        supernet = Supernet(self.space, **self.options).double()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for logits in supernet.logits():
                logits.copy_(torch.randn(logits.shape, dtype=logits.dtype, generator=generator))
        return supernet

    def _value(self, supernet: Supernet) -> Tensor:
        given = dict.fromkeys(kind("regularizer").given, costs(self.space.describe(**self.options)))
        value: Tensor = made("regularizer", type(self).regularizer, supernet, **given)
        return value

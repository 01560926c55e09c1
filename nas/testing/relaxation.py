"""What every relaxation must satisfy: a test class to inherit from.

>>> class TestExploring(RelaxationTests):
...     relaxation = {"name": "exploring", "share": 0.2}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.declarations import LEARNED, SHARES, declaration_of
from nas.relaxation.relaxation import USUAL
from nas.supernet import Evaluation, Memory, Supernet
from nas.testing.small_space import SMALL
from nas.testing.subject import Subject, made, unchanged
from nas.testing.supernet_part import SupernetPartTests


class RelaxationTests(SupernetPartTests):
    """Conformance tests of a relaxation: subclass it in a test module, as `Test...`, and name the relaxation."""

    part = "relaxation"
    relaxation: ClassVar[Subject]
    """A name, a mapping of `name` and arguments, or a class."""
    total: ClassVar[float | None] = 1.0
    """The sum of the mixing weights; None if it depends on the logits, as it may if the relaxation declares so."""

    def test_mixing_weights_are_shares(self) -> None:
        relaxation = self._made()
        expected = self.total if self._gives(SHARES) else None
        for logits in self._examples():
            weights = relaxation(logits)
            assert weights.shape == logits.shape, f"logits {tuple(logits.shape)} give weights {tuple(weights.shape)}"
            assert weights.dtype == logits.dtype, f"logits of {logits.dtype} give weights of {weights.dtype}"
            assert weights.isfinite().all(), f"mixing weights must be finite, got {_shown(weights)}"
            assert ((weights >= 0) & (weights <= 1)).all(), f"mixing weights must be in [0, 1], got {_shown(weights)}"
            total = weights.sum().item()
            assert expected is None or abs(total - expected) < 1e-9, (
                f"mixing weights must add up to {expected:g}, got {total:g}; declare what the relaxation gives (see"
                " `nas.declarations.declares`), without SHARES, if they need not"
            )

    def test_the_order_of_candidates_does_not_matter(self) -> None:
        relaxation = self._made()
        for logits in self._examples():
            order = torch.arange(len(logits)).roll(1)
            assert torch.allclose(relaxation(logits[order]), relaxation(logits)[order], rtol=1e-9, atol=1e-12), (
                "mixing weights of reordered candidates differ by more than their order"
            )

    def test_evaluation_is_deterministic(self) -> None:
        relaxation = self._made()
        for logits in self._examples():
            with unchanged("a relaxation in eval mode", relaxation):
                first, second = relaxation(logits), relaxation(logits)
            assert torch.equal(first, second), f"two calls in eval mode differ: {_shown(first)} and {_shown(second)}"

    def test_the_gradient_equals_finite_differences(self) -> None:
        relaxation = self._made()
        functions: list[Callable[[Tensor], Tensor]] = [relaxation]
        logits = torch.tensor([0.21, -0.4, 0.33, 0.05], dtype=torch.double, requires_grad=True)
        for function in functions:
            assert torch.autograd.gradcheck(function, logits, raise_exception=False), (
                "the gradient differs from finite differences in float64"
            )

    def test_a_copy_with_the_state_computes_the_same(self) -> None:
        relaxation, other = self._made(), self._made()
        other.load_state_dict(relaxation.state_dict())
        for logits in self._examples():
            first, second = relaxation(logits), other(logits)
            assert torch.equal(first, second), (
                f"a second relaxation with the same state_dict() gives {_shown(second)}, the first one {_shown(first)}"
            )

    def test_gradients_reach_the_logits_through_a_supernet(self) -> None:
        supernet = self._supernet()
        output = supernet(SMALL.example.double()).square().sum()
        gradients = torch.autograd.grad(output, supernet.logits(), allow_unused=True, materialize_grads=True)
        for label, gradient in zip(supernet.arch, gradients, strict=True):
            assert gradient.isfinite().all(), f"the gradient of '{label}' must be finite, got {_shown(gradient)}"
            if self._gives(LEARNED):
                assert gradient.any(), f"the gradient of '{label}' is zero: the logits would never change"
            else:
                assert not gradient.any(), (
                    f"'{label}' gets a gradient, although the relaxation does not declare LEARNED"
                )

    def _gives(self, *facts: str) -> bool:
        return declaration_of(self._made(), USUAL).gives.issuperset(facts)

    def _made(self) -> nn.Module:
        made_now = made("relaxation", type(self).relaxation)
        assert isinstance(made_now, nn.Module), f"a relaxation must be an nn.Module, got {made_now!r}"
        return made_now.double().eval()

    def _supernet(self, evaluation: Evaluation = "planned", memory: Memory = "keep") -> Supernet:
        supernet = Supernet(SMALL.space, relaxation=self._made(), evaluation=evaluation, memory=memory)
        supernet.double().train().on_progress(1, 4)
        return supernet

    def _examples(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        yield torch.zeros(3, dtype=torch.double)
        for size in (1, 2, 5):
            yield torch.randn(size, dtype=torch.double, generator=generator)
            yield 30 * torch.randn(size, dtype=torch.double, generator=generator)


def _shown(values: Tensor) -> str:
    return ", ".join(f"{value:g}" for value in values.tolist())

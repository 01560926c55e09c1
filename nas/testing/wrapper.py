"""What every wrapper must satisfy: a test class to inherit from.

>>> class TestFloor(WrapperTests):
...     wrapper = {"name": "floor", "share": 0.2}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from nas.space.definition import SearchSpace, find_space
from nas.space.wrapper import Wrapper
from nas.supernet import Evaluation, Memory, Supernet
from nas.testing.small_space import SMALL
from nas.testing.subject import Subject, made
from nas.testing.supernet_part import SupernetPartTests


class WrapperTests(SupernetPartTests):
    """Conformance tests of a wrapper: subclass it in a test module, as `Test...`, and name the wrapper."""

    part = "wrapper"
    wrapper: ClassVar[Subject]
    """A name, a mapping of `name` and arguments, or a class."""
    space: ClassVar[SearchSpace | str] = SMALL.space
    """A search space that the wrapper can take, whose networks take images of one channel."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options of the space."""
    relaxation: ClassVar[Any] = "softmax"
    """The relaxation beside it."""

    def test_it_changes_something(self) -> None:
        expected, found = self._outputs(self._wrapped([])), self._outputs(self._supernet())
        assert expected.shape == found.shape, f"outputs must have the shape {tuple(expected.shape[1:])}"
        same = torch.allclose(expected, found, rtol=1e-9, atol=1e-12)
        assert not same, "a supernet with the wrapper computes what one without it does"

    def test_evaluation_is_deterministic(self) -> None:
        supernet = self._supernet().eval()
        first, second = self._outputs(supernet), self._outputs(supernet)
        assert torch.equal(first, second), "two forward passes in eval mode differ"

    def test_gradients_reach_every_arch_parameter(self) -> None:
        supernet = self._supernet()
        output = supernet(SMALL.example.double()).square().sum()
        gradients = torch.autograd.grad(output, supernet.logits(), allow_unused=True, materialize_grads=True)
        for label, gradient in zip(supernet.arch, gradients, strict=True):
            assert gradient.isfinite().all(), f"the gradient of '{label}' must be finite"
            assert len(gradient) < 2 or gradient.any(), f"the gradient of '{label}' is zero: it would never change"

    def _outputs(self, supernet: Supernet) -> Tensor:
        """The outputs in four steps."""
        outputs = []
        for step in range(4):
            supernet.on_progress(step, 4)
            with torch.no_grad():
                outputs.append(supernet(SMALL.example.double()))
        return torch.stack(outputs)

    def _space(self) -> SearchSpace:
        space = type(self).space
        return find_space(space) if isinstance(space, str) else space

    def _made(self) -> Wrapper:
        made_now = made("wrapper", type(self).wrapper)
        assert isinstance(made_now, Wrapper), f"a wrapper must inherit nas.space.wrapper.Wrapper, got {made_now!r}"
        return made_now

    def _supernet(self, evaluation: Evaluation = "planned", memory: Memory = "keep") -> Supernet:
        return self._wrapped([self._made()], evaluation=evaluation, memory=memory)

    def _wrapped(self, wrappers: list[Wrapper], **how: Any) -> Supernet:
        supernet = Supernet(self._space(), wrappers=wrappers, relaxation=self.relaxation, **how, **self.options)
        supernet.double().train().on_progress(1, 4)
        with torch.no_grad():
            for logits in supernet.logits():
                logits.copy_(torch.linspace(-0.4, 0.6, len(logits)))
        return supernet

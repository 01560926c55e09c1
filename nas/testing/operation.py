"""What every candidate operation must satisfy: a test class to inherit from.

>>> class TestSeparable(OperationTests):
...     operation = {"factory": "separable", "kernel": 5}
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.registry import takes
from nas.space.cell import Cell
from nas.space.definition import SearchSpace
from nas.space.inplace import Unchanged
from nas.space.operations import OperationSet
from nas.testing.search_space import SearchSpaceTests
from nas.testing.subject import unchanged


class OperationTests:
    """Conformance tests of a candidate operation: subclass it in a test module, as `Test...`, and name the operation.

    An operation that takes `stride` is tested with the strides 1 and 2.
    """

    operation: ClassVar[str | Mapping[str, Any] | Callable[..., nn.Module]]
    """A name, a mapping of `factory` and keyword arguments, or a function that returns a module."""
    arguments: ClassVar[tuple[Any, ...]] = (8,)
    """What a search space passes by position: by default 8 channels."""

    def example_input(self, height: int, width: int) -> Tensor:
        """Return an input of this size, with two items or more; by default `(2, channels, height, width)`."""
        return torch.randn(2, self.arguments[0], height, width, generator=torch.Generator().manual_seed(0))

    def expected_shape(self, shape: torch.Size, stride: int) -> tuple[int, ...]:
        """Return the shape of the output for an input of a shape; by default a stride divides height and width."""
        *first, height, width = shape
        return (*first, -(-height // stride), -(-width // stride))

    def test_outputs_have_the_expected_shape(self) -> None:
        for module, stride in self._modules():
            for size in ((8, 6), (7, 5)):
                x = self.example_input(*size)
                y, expected = module(x), self.expected_shape(x.shape, stride)
                assert isinstance(y, Tensor), f"the output must be a tensor, got {type(y).__name__}"
                assert tuple(y.shape) == expected, (
                    f"at stride {stride} an input {tuple(x.shape)} must give {expected}, got {tuple(y.shape)}"
                )

    def test_it_is_described_on_the_meta_device(self) -> None:
        for stride in self._strides():
            with torch.device("meta"):
                module = self._made(stride)
                x = torch.empty_like(self.example_input(7, 5), device="meta")
                assert module(x).shape == self.expected_shape(x.shape, stride)

    def test_gradients_are_finite_and_reach_every_parameter(self) -> None:
        for module, stride in self._modules():
            x = self.example_input(7, 5).requires_grad_()
            y = module(x)
            assert y.requires_grad, f"at stride {stride} the output is detached from the input"
            inputs = {"the input": x, **{f"'{n}'": p for n, p in module.named_parameters() if p.requires_grad}}
            found = torch.autograd.grad((y * torch.randn_like(y)).sum(), list(inputs.values()), allow_unused=True)
            for name, gradient in zip(inputs, found, strict=True):
                assert gradient is not None, f"at stride {stride} {name} gets no gradient"
                assert gradient.isfinite().all(), f"at stride {stride} the gradient of {name} is not finite"

    def test_it_leaves_its_input_as_it_is(self) -> None:
        for module, stride in self._modules():
            for training in (True, False):
                x = self.example_input(7, 5)
                watched = Unchanged(x)
                module.train(training)(x)
                assert watched.holds(), f"at stride {stride} the operation changes its input; use inplace=False"

    def test_names_of_its_state_are_fixed(self) -> None:
        for module, stride in self._modules():
            names = list(module.state_dict())
            again = list(self._made(stride).state_dict())
            assert names == again, f"built twice, the state has the names {names} and {again}"
            module(self.example_input(7, 5))
            after = list(module.state_dict())
            assert names == after, f"a forward pass changes the names of the state from {names} to {after}"

    def test_it_computes_in_the_precision_of_its_input(self) -> None:
        for module, stride in self._modules():
            y = module.double()(self.example_input(7, 5).double())
            assert y.dtype == torch.double, f"at stride {stride} a float64 input gives {y.dtype}"

    def test_evaluation_is_repeatable(self) -> None:
        for module, _ in self._modules():
            x = self.example_input(7, 5)
            with unchanged("an operation in eval mode", module.eval()), torch.no_grad():
                first, second = module(x), module(x)
            assert torch.equal(first, second), "two equal calls in eval mode differ"

    def test_a_copy_is_independent(self) -> None:
        for module, _ in self._modules():
            x = self.example_input(7, 5)
            with torch.no_grad():
                expected = module.eval()(x)
                other = copy.deepcopy(module)
                assert torch.equal(other(x), expected), "a deep copy computes something else"
                for parameter in other.parameters():
                    parameter.add_(1.0)
                assert torch.equal(module(x), expected), "a deep copy shares weights with the original"

    def test_items_of_a_batch_are_independent(self) -> None:
        for module, _ in self._modules():
            x = self.example_input(7, 5)
            with torch.no_grad():
                together, alone = module.eval()(x), module(x[:1])
            difference = (together[:1] - alone).abs().max()
            assert torch.allclose(together[:1], alone, rtol=1e-4, atol=1e-5), (
                f"in eval mode an item's output changes with its batch by up to {difference:.3g}"
            )

    def test_planned_evaluation_equals_plain_evaluation(self) -> None:
        x = self.example_input(7, 5)
        candidates = {"operation": lambda: self._made(1), "skip": nn.Identity}

        class InACell(SearchSpaceTests):
            space = SearchSpace("in a cell", lambda choose, /: Cell(choose, "cell", candidates, inputs=1, nodes=2))

            def example_input(self) -> Tensor:
                return x

        InACell().test_planned_evaluation_equals_plain_evaluation()

    def _strides(self) -> tuple[int, ...]:
        return (1, 2) if takes(self._factory(), ["stride"]) else (1,)

    def _modules(self) -> Iterator[tuple[nn.Module, int]]:
        for stride in self._strides():
            with torch.random.fork_rng():
                torch.manual_seed(0)
                yield self._made(stride), stride

    def _factory(self) -> Callable[..., nn.Module]:
        named = type(self).operation
        entry = {"factory": named} if isinstance(named, str) else named
        return OperationSet.of({"operation": entry})["operation"]

    def _made(self, stride: int) -> nn.Module:
        factory = self._factory()
        return factory(*self.arguments, **({"stride": stride} if takes(factory, ["stride"]) else {}))

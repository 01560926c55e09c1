"""What every search space must satisfy: a test class for the authors of spaces to inherit from.

>>> class TestMySpace(SearchSpaceTests):
...     space = my_space
...     options = {"channels": 4}
...     def example_input(self):
...         return torch.randn(2, 3, 8, 8)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.derive.random import choose_randomly
from nas.genotype.file import Genotype
from nas.kernels.torch_internals import tree_leaves, tree_map_only
from nas.run.inheritance import check_inheritance
from nas.space.definition import SearchSpace
from nas.supernet import Evaluation, Supernet


class SearchSpaceTests:
    """Conformance tests of a search space: subclass it in a test module, as `Test...`, and name the space.

    The subclass owns what it gives; the tests build and run small networks, on the CPU, and write nothing.
    """

    space: ClassVar[SearchSpace]
    options: ClassVar[Mapping[str, Any]] = {}
    """Options of the space; small ones make fast tests."""
    trials: ClassVar[int] = 5
    """How many random genotypes each test tries."""

    def example_input(self) -> Any:
        """What the network takes: a tensor, or a tuple of them, with at least two items in the first dimension."""
        raise NotImplementedError(f"{type(self).__name__} must define example_input()")

    def test_the_space_has_decisions(self) -> None:
        found = self.space.describe(**self.options).decisions
        assert found, f"space '{self.space.name}' asks `choose` for nothing: a genotype of it would be empty"
        assert found == self._supernet().decisions, "decisions differ between a description and a supernet"

    def test_options_are_plain_data(self) -> None:
        plain = self.space.options(**self.options)
        loaded = Genotype.parse(Genotype(space=self.space.name, choices={}, options=plain).dump()).options
        assert loaded == plain, f"options change in a genotype file: {_difference(plain, loaded)}"
        again = self.space.options(**loaded)
        assert again == plain, f"options change when given again: {_difference(plain, again)}"

    def test_gradients_reach_every_arch_parameter(self) -> None:
        supernet = self._supernet()
        outputs = _tensors(supernet(*self._inputs()))
        assert outputs, "the network returned no tensor"
        total = torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum()
        logits = dict(supernet.arch.items())
        assert total.requires_grad, "the output is detached from every parameter"
        gradients = torch.autograd.grad(total, list(logits.values()), allow_unused=True) if logits else ()
        for label, gradient in zip(logits, gradients, strict=True):
            assert gradient is not None, f"the decision '{label}' does not reach the output: unused, or detached"
            assert gradient.isfinite().all(), f"the gradient of '{label}' is not finite: {gradient.tolist()}"

    def test_genotypes_build_and_survive_a_file(self) -> None:
        for genotype in self._genotypes():
            self.space.derived(genotype)
            loaded = Genotype.parse(genotype.dump())
            assert loaded == genotype, f"written and read back, {genotype} became {loaded}"

    def test_derived_weights_are_named_as_in_the_supernet(self) -> None:
        mine = self._supernet().network.state_dict().keys()
        for genotype in self._genotypes():
            lacking = self.space.derived(genotype).state_dict().keys() - mine
            assert not lacking, (
                f"derived weights that the supernet lacks: {', '.join(sorted(lacking))}; names of modules must not"
                f" depend on what is chosen{_with(genotype)}"
            )

    def test_a_derived_network_begins_as_the_supernet(self) -> None:
        supernet = self._supernet()
        if self._has_widths():
            return  # a narrower layer draws other numbers
        for genotype in self._genotypes():
            fresh = self.space.derived(genotype, seed=0)
            _assert_equal_states(supernet.derived(genotype), fresh, "a new derived network")

    def test_planned_evaluation_equals_plain_evaluation(self) -> None:
        inputs = _double(self._inputs())

        def evaluated(evaluation: Evaluation, training: bool, seed: int = 0) -> list[Tensor]:
            supernet = self._supernet(evaluation).double().train(training)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                outputs = _tensors(supernet(*inputs))
            total = torch.stack([(output * output).sum() for output in outputs]).sum()
            parameters = [p for p in supernet.parameters() if p.requires_grad]
            gradients = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
            return [*outputs, *gradients, *supernet.buffers()]

        for training in (True, False):
            plain = evaluated("plain", training)
            if training and not all(map(torch.equal, plain, evaluated("plain", training, seed=1))):
                continue  # random numbers are drawn in another order
            for a, b in zip(plain, evaluated("planned", training), strict=True):
                assert torch.allclose(a, b, rtol=1e-9, atol=1e-9), (
                    f"planned evaluation differs from plain evaluation by up to {(a - b).abs().max():.3g}: an"
                    " operation's `structure()` or `channelwise` is not what it computes"
                )

    def test_a_fixed_supernet_equals_the_derived_network(self) -> None:
        supernet, inputs = self._supernet("plain"), self._inputs()
        tolerance = 0.0
        if self._has_widths():  # sums over masked channels are rounded differently from sums without them
            supernet, inputs, tolerance = supernet.double(), _double(inputs), 1e-9
        with torch.no_grad():
            supernet(*inputs)  # moves the statistics of norms away from their initial values
        supernet.eval()
        for genotype in self._genotypes():
            with torch.no_grad(), supernet.fixed(genotype):
                mixed = _tensors(supernet(*inputs))
            with torch.no_grad():
                derived = _tensors(supernet.derived(genotype)(*inputs))
            shapes = [[tuple(output.shape) for output in outputs] for outputs in (mixed, derived)]
            assert shapes[0] == shapes[1], f"the supernet returns {shapes[0]}, derived {shapes[1]}{_with(genotype)}"
            for a, b in zip(mixed, derived, strict=True):
                assert torch.allclose(a, b, rtol=tolerance, atol=tolerance), (
                    f"supernet and derived network differ by up to {(a - b).abs().max():.3g}: the network computes with"
                    f" more than what was chosen{_with(genotype)}"
                )

    def test_narrow_networks_inherit_what_the_supernet_computes(self) -> None:
        check_inheritance(self.space.describe(**self.options), self._inputs())

    def test_the_seed_gives_the_initial_weights(self) -> None:
        torch.manual_seed(1)
        first = self._supernet()
        torch.manual_seed(2)
        before = torch.get_rng_state()
        _assert_equal_states(first, self._supernet(), "a second supernet of the same seed")
        assert torch.equal(before, torch.get_rng_state()), "building a supernet moved torch's random state"

    def test_evaluation_is_repeatable(self) -> None:
        supernet = self._supernet().eval()
        inputs = self._inputs()
        before = copy.deepcopy(supernet)
        with torch.no_grad():
            first, second = (_tensors(supernet(*inputs)) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert torch.equal(a, b), f"in eval mode two equal calls differ by up to {(a - b).abs().max():.3g}"
        _assert_equal_states(before, supernet, "a supernet evaluated once")

    def test_a_copy_is_independent(self) -> None:
        supernet = self._supernet().eval()
        inputs = self._inputs()
        with torch.no_grad():
            expected = _tensors(supernet(*inputs))
            other = copy.deepcopy(supernet)
            for a, b in zip(expected, _tensors(other(*inputs)), strict=True):
                assert torch.equal(a, b), "a deep copy of the supernet computes something else"
            for parameter in other.parameters():
                parameter.add_(1.0)
            for a, b in zip(expected, _tensors(supernet(*inputs)), strict=True):
                assert torch.equal(a, b), "a deep copy of the supernet shares weights with it"

    def test_items_of_a_batch_are_independent(self) -> None:
        supernet = self._supernet().eval()
        inputs = self._inputs()
        sizes = {len(value) for value in _tensors(inputs)}
        assert len(sizes) == 1, f"example_input() has batches of different sizes: {sizes}"
        assert min(sizes) > 1, "example_input() has a batch of 1, expected 2 or more items"
        with torch.no_grad():
            together = _tensors(supernet(*inputs))
            alone = _tensors(supernet(*tree_map_only(Tensor, lambda tensor: tensor[:1], inputs)))
        for a, b in zip(together, alone, strict=True):
            if a.dim() == 0:
                continue  # a loss of the whole batch
            assert len(a) in sizes, f"the output's first dimension is {len(a)}, expected the batch's {sizes}"
            assert torch.allclose(a[:1], b, rtol=1e-4, atol=1e-5), (
                f"in eval mode an item's output changes by up to {(a[:1] - b).abs().max():.3g} with its batch"
            )

    def _supernet(self, evaluation: Evaluation = "planned") -> Supernet:
        return Supernet(self.space, seed=0, evaluation=evaluation, **self.options)

    def _inputs(self) -> tuple[Any, ...]:
        inputs = self.example_input()
        return inputs if isinstance(inputs, tuple) else (inputs,)

    def _genotypes(self) -> Iterator[Genotype]:
        description = self.space.describe(**self.options)
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.trials):
            choices = choose_randomly(description.decisions, generator)
            yield Genotype(space=self.space.name, choices=choices, options=description.options)

    def _has_widths(self) -> bool:
        return any(d.kind == "width" for d in self.space.describe(**self.options).decisions.values())


def _tensors(value: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists and dictionaries."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _double(value: Any) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, value)


def _with(genotype: Genotype) -> str:
    return f", with the choices {genotype.choices}"


def _difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {a.get(name)!r} became {b.get(name)!r}" for name in a if a.get(name) != b.get(name))


def _assert_equal_states(a: nn.Module, b: nn.Module, what: str) -> None:
    for (name, x), (other, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other, f"{what} has '{other}' where '{name}' was expected"
        assert torch.equal(x, y), f"{what} has other values of '{name}'"

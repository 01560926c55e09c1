"""What every part that acts on a supernet must satisfy, shared by the conformance tests of several kinds."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nas.declarations import LEARNED, SAME_CANDIDATES
from nas.errors import ConfigError
from nas.files import convert
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.supernet import Evaluation, Memory, Supernet
from nas.testing.small_space import SMALL
from nas.testing.subject import reloaded, unchanged

EVALUATIONS: Sequence[tuple[Evaluation, Memory]] = (("plain", "keep"), ("planned", "keep"), ("planned", "checkpoint"))


class SupernetPartTests(abc.ABC):
    """Tests of a supernet with the part in it: its noise, its evaluation, its responses, and that a search resumes."""

    part: ClassVar[str]
    """The kind of the part, for messages."""

    @abc.abstractmethod
    def _supernet(self, evaluation: Evaluation = "planned", memory: Memory = "keep") -> Supernet:
        """A new supernet in float64 with the part, in train mode, at step 1 of 4."""

    def _gives(self, *facts: str) -> bool:
        given = {fact for part in self._supernet().parts() for fact in part.declaration.gives}
        return given.issuperset(facts)

    def test_noise_comes_from_the_search(self) -> None:
        outputs = []
        for seed in (0, 1):
            supernet = self._supernet()
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                with unchanged(f"a {self.part}"):
                    outputs.append(supernet(SMALL.example.double()))
        assert torch.equal(*outputs), (
            "in train mode the output depends on torch's random state; noise must be a function of (seed, label,"
            " candidate, step), as that of `draw` of a relaxation"
        )

    def test_planned_and_checkpointed_evaluation_equal_the_plain_one(self) -> None:
        expected = list(self._passes(*EVALUATIONS[0]))
        for evaluation, memory in EVALUATIONS[1:]:
            for before, now in zip(expected, self._passes(evaluation, memory), strict=True):
                for name in before:
                    assert torch.allclose(before[name], now[name], rtol=1e-9, atol=1e-11), (
                        f"evaluation '{evaluation}' with memory '{memory}' changes {name}; a {self.part} may depend on"
                        " nothing but its arguments, and those of the call"
                    )

    def test_unrolled_responses_equal_the_plain_ones_or_are_refused(self) -> None:
        if not self._gives(LEARNED, SAME_CANDIDATES):
            reason = self._refusal()
            assert reason, "a search whose responses cannot work must be refused with a ConfigError"
            assert "\n" not in reason, f"the reason must be one line, got {reason}"
            return
        supernets = [self._supernet(evaluation, memory) for evaluation, memory in EVALUATIONS]
        found = [self._engine(supernet, unrolled=True).gradient("upper", 2)[1] for supernet in supernets]
        for other in found[1:]:
            for name, gradient in found[0].items():
                assert torch.allclose(gradient, other[name], rtol=1e-8, atol=1e-10), (
                    f"the gradient of '{name}' through an unrolled step depends on how cells are evaluated"
                )

    def test_a_search_that_is_saved_and_loaded_steps_bit_for_bit(self) -> None:
        whole, resumed = self._engine(self._supernet()), self._engine(self._supernet())
        for k in range(4):
            whole.step(k)
            state = reloaded({"network": resumed.model.state_dict(), "levels": resumed.state_dict()})
            resumed = self._engine(self._supernet())
            resumed.model.load_state_dict(state["network"])
            resumed.load_state_dict(state["levels"])
            resumed.step(k)
        expected, found = whole.model.state_dict(), resumed.model.state_dict()
        for name, tensor in expected.items():
            assert torch.equal(tensor, found[name]), (
                f"'{name}' differs between a search and one that was saved and loaded after every step; a"
                f" {self.part} may have no state beside its buffers"
            )

    def _refusal(self) -> str:
        try:
            self._engine(self._supernet(), unrolled=True)
        except ConfigError as error:
            return str(error)
        return ""

    def _passes(self, evaluation: Evaluation, memory: Memory) -> Iterator[Mapping[str, Tensor]]:
        """The output, gradients and buffers of a step of the logits, of one of the weights, and in eval mode."""
        supernet = self._supernet(evaluation, memory)
        for step, learns, training in ((1, True, True), (2, False, True), (2, True, False)):
            supernet.on_progress(step, 4)
            supernet.train(training)
            for logits in supernet.logits():
                logits.requires_grad_(learns)
            parameters = {name: p for name, p in supernet.named_parameters() if p.requires_grad}
            output = supernet(SMALL.example.double())
            gradients = torch.autograd.grad(
                output.square().sum(), list(parameters.values()), allow_unused=True, materialize_grads=True
            )
            named = {f"the gradient of '{name}'": g for name, g in zip(parameters, gradients, strict=True)}
            buffers = {f"the buffer '{name}'": b.double().clone() for name, b in supernet.named_buffers()}
            yield {"the output": output.detach(), **named, **buffers}

    def _engine(self, supernet: Supernet, *, unrolled: bool = False) -> Multilevel:
        """Two levels over the supernet, or only that of the operation weights if the logits do not learn."""
        common = {"loss": "squared", "split": "all", "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}
        response = {"hypergradient": {"lower": {"name": "unrolled"}}} if unrolled else {}
        levels = {
            "lower": {"parameters": ["network.*"], **common},
            "upper": {"parameters": ["arch.*"], **common, **response},
        }
        if not self._gives(LEARNED) and not unrolled:
            del levels["upper"]
        generator = torch.Generator().manual_seed(1)
        batches = [SMALL.example + torch.randn(SMALL.example.shape, generator=generator) for _ in range(12)]
        return Multilevel(
            supernet,
            {name: convert(level, Level, name) for name, level in levels.items()},
            {"squared": lambda net, x: net(x).square().mean()},
            lambda split, index: batches[index].to(next(supernet.parameters())),
            6,
        )

"""What every task must satisfy: a test class to inherit from.

>>> class TestGratings(TaskTests):
...     task = {"name": "gratings", "noise": 0.8}
...     def network(self):
...         return nas.Supernet("pictures", channels=4)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor, nn

from nas.files import convert
from nas.kernels.evaluation import in_mode
from nas.run.task import TASKS, TEST, Task, require_ranked
from nas.testing.subject import Subject, tensors, unchanged


class TaskTests:
    """Conformance tests of a task: subclass it in a test module, as `Test...`, and name the task.

    The tests read the first batches of the splits, and evaluate one network.
    """

    task: ClassVar[Subject]
    """A name, a mapping of `name` and settings, or a function of the keyword argument `seed` that returns the task."""
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    """Splits that have batches and no samples in common."""
    evaluated: ClassVar[str] = TEST
    """The split to evaluate."""

    def network(self) -> nn.Module:
        """Return a small network for the task: a supernet or another module, the same in each call."""
        raise NotImplementedError(f"{type(self).__name__} must define network()")

    def test_the_score_is_ranked(self) -> None:
        require_ranked(self._made())

    def test_a_batch_is_a_function_of_split_index_and_seed(self) -> None:
        task = self._made()
        for split in self.splits:
            first = [task.batch(split, index) for index in (0, 1)]
            other = self._made()
            with torch.random.fork_rng():
                torch.manual_seed(1)
                again = [other.batch(split, index) for index in (1, 0)]
            for index, (a, b) in enumerate(zip(first, reversed(again), strict=True)):
                assert _equal(a, b), (
                    f"batch {index} of '{split}' changes with the batches read before or with torch's random state;"
                    " draw from a torch.Generator seeded by (seed, split, index)"
                )

    def test_batches_leave_the_random_state(self) -> None:
        task = self._made()
        for split in self.splits:
            with unchanged(f"a batch of '{split}'"):
                task.batch(split, 0)

    def test_splits_do_not_overlap(self) -> None:
        task = self._made()
        members = {split: set(task.members(split)) for split in self.splits}
        for i, split in enumerate(self.splits):
            for other in self.splits[:i]:
                common = len(members[split] & members[other])
                assert not common, f"'{other}' and '{split}' have {common} members in common"

    def test_losses_are_finite_scalars_with_gradients(self) -> None:
        task, network = self._made(), self.network().train()
        batch = task.batch(self.splits[0], 0)
        assert task.losses, "a task must have a loss, got none"
        for name, loss in task.losses.items():
            value = loss(network, batch)
            assert isinstance(value, Tensor), f"the loss '{name}' must be a tensor, got {value!r}"
            assert value.dim() == 0, f"the loss '{name}' must be a scalar, got a tensor of shape {tuple(value.shape)}"
            assert value.isfinite(), f"the loss '{name}' must be finite, got {value.item():g}"
            assert value.requires_grad, f"the loss '{name}' does not depend on the network, or is detached from it"

    def test_a_network_takes_the_example(self) -> None:
        example = self._made().example()
        assert isinstance(example, tuple), f"example() must return a tuple of inputs, got {type(example).__name__}"
        sizes = {len(tensor) for tensor in tensors(example)}
        assert sizes == {1}, f"the inputs of example() must have the batch size 1, got {sorted(sizes)}"
        with torch.no_grad():
            self.network().eval()(*example)

    def test_metrics_are_numbers_and_repeatable(self) -> None:
        task, network = self._made(), self.network()
        task.check(self.evaluated)
        inputs: dict[str, Any] = {"evaluate": self.evaluated}
        if task.has("measure"):
            inputs["measure"] = task.batch(self.splits[-1], 0)
        for name, given in inputs.items():
            function = getattr(task, name)
            with in_mode(network, "eval"), torch.no_grad(), unchanged(f"{name}()", network):
                first, second = function(network, given), function(network, given)
            assert isinstance(first, Mapping), f"{name}() must return a mapping of metrics, got {first!r}"
            assert task.score in first, f"{name}() must return the score '{task.score}', got {', '.join(first)}"
            for metric, value in first.items():
                assert isinstance(value, int | float), f"{name}(): '{metric}' must be a number, got {value!r}"
                same = value == second[metric] or (math.isnan(value) and math.isnan(second[metric]))
                assert same, f"{name}(): '{metric}' is {value:g} and then {second[metric]:g} for the same network"
            lacking = [metric for metric in task.metrics if name == "evaluate" and metric not in first]
            assert not lacking, f"evaluate() must return every metric that `metrics` declares, got no '{lacking[0]}'"

    def test_settings_are_plain_data(self) -> None:
        settings = self._made().settings()
        msgspec.json.encode(settings)
        assert settings == self._made().settings(), "two equal tasks have different settings()"

    def _made(self) -> Task:
        return task_made(type(self).task)


def task_made(subject: Subject, seed: int = 0) -> Task:
    """Make a task as a run does."""
    if not isinstance(subject, str | Mapping):
        made: Task = subject(seed=seed)
        return made
    entry = {"name": subject} if isinstance(subject, str) else dict(subject)
    found = TASKS.find(entry.pop("name"), "task")
    task: Task = found(convert(entry, found.Config, "task"), seed=seed)
    return task


def _equal(a: Any, b: Any) -> bool:
    """Whether two batches have equal tensors and equal other values."""
    ours, theirs = tensors(a), tensors(b)
    return len(ours) == len(theirs) and all(
        x.shape == y.shape and x.dtype == y.dtype and bool(((x == y) | ((x != x) & (y != y))).all())
        for x, y in zip(ours, theirs, strict=True)
    )

"""What every observer must satisfy: a test class to inherit from.

>>> class TestArchNorm(ObserverTests):
...     observer = "arch_norm"
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.files import convert
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.run.observer import Observer, Observers, Start
from nas.run.task import Task
from nas.supernet import Supernet
from nas.testing.small_space import SMALL
from nas.testing.subject import Subject, made, reloaded

STEPS, EPOCHS = 6, 3


class ObserverTests:
    """Conformance tests of an observer: subclass it in a test module, as `Test...`, and name the observer.

    It watches a small search of two levels.
    """

    observer: ClassVar[Subject]
    """A name, a mapping of `name` and arguments, or a class."""

    def test_it_leaves_the_search_as_it_is(self) -> None:
        watched, alone = _Search(), _Search()
        watched.go([self._made(watched)], 0, STEPS)
        alone.go([], 0, STEPS)
        found = watched.supernet.state_dict()
        for name, tensor in alone.supernet.state_dict().items():
            assert torch.equal(tensor, found[name]), f"'{name}' differs between a search with it and one without"

    def test_a_loaded_state_continues_the_course(self) -> None:
        search = _Search()
        whole = search.go([self._made(search)], 0, STEPS)
        search = _Search()
        resumed, found = self._made(search), list[Any]()
        for step in range(STEPS):
            state = reloaded(resumed.state_dict())
            resumed = self._made(search)
            resumed.load_state_dict(state)
            found += search.go([resumed], step, step + 1)
        assert found == whole, f"uninterrupted it returns {whole}, saved and loaded {found}"

    def _made(self, search: _Search) -> Observer:
        given = {"description": SMALL.space.describe(), "task": SmallTask(), "levels": search.levels}
        observer = made("observer", type(self).observer, **given)
        assert isinstance(observer, Observer), f"an observer must inherit nas.Observer, got {observer!r}"
        return observer


class SmallTask(Task):
    """Small outputs of the networks of the small space."""

    losses = {"squared": lambda network, batch: network(batch).square().mean()}  # noqa: RUF012 - as users write it
    score, metrics = "error", {"error": "min"}

    def batch(self, split: str, index: int) -> Tensor:
        """Return images of noise."""
        generator = torch.Generator().manual_seed(2 * index + (split == "val"))
        return SMALL.example + torch.randn(SMALL.example.shape, generator=generator)

    def example(self) -> tuple[Tensor, ...]:
        """Return one image."""
        return (SMALL.example[:1],)

    def evaluate(self, network: nn.Module, split: str = "test") -> dict[str, float]:
        """Return the loss of the first batch."""
        return {"error": self.losses["squared"](network, self.batch(split, 0)).item()}


class _Search:
    """A search of two levels over the small space."""

    def __init__(self) -> None:
        task = SmallTask()
        self.supernet = Supernet(SMALL.space)
        common = {"loss": "squared", "optimizer": {"name": "sgd", "lr": 0.05}}
        response = {"hypergradient": {"lower": {"name": "unrolled"}}}
        levels = {
            "lower": {"parameters": ["network.*"], "split": "train", **common},
            "upper": {"parameters": ["arch.*"], "split": "val", **response, **common},
        }
        parts = {name: convert(level, Level, name) for name, level in levels.items()}
        self.levels = Multilevel(self.supernet, parts, task.losses, task.batch, STEPS)

    def go(self, given: Sequence[Observer], start: int, end: int) -> list[tuple[int, dict[str, Any]]]:
        """Take steps; returns what an observer returns at each epoch."""
        observers, found = Observers(given), []
        observers.start(Start("search", Path(), self.supernet, start, STEPS))
        for k in range(start, end):
            observers.step(k + 1, self.levels.step(k))
            if (k + 1) % (STEPS // EPOCHS) == 0:
                genotype = self.supernet.derive()
                found += [(k + 1, values) for _, values in observers.epoch(k + 1, self.supernet, genotype)]
        observers.end()
        return found
